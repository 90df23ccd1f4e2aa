"""Which engines there are, and what they serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients see it. `context`: window in tokens; `temperature` … `top_k`: what its makers sample with.

    `thinking_switch`: whether a request can choose between answers with and without reasoning.
    """

    name: str
    aliases: tuple[str, ...]
    context: int
    created: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    thinking_switch: bool = False


TTFT_BOUNDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)
"""Upper bounds of the classes in which times to the first token are counted, in seconds; the last class has none."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one engine process has done since it started.

    `answers`: ended ones, by status; `prompt`, `cached` (of them), `output`: their tokens. `ttft`: how many answers had
    their first token within each of TTFT_BOUNDS and not the one before, waiting included; `ttft_seconds`: their sum.
    """

    answers: dict[str, int] = field(default_factory=dict)
    prompt: int = 0
    cached: int = 0
    output: int = 0
    ttft: tuple[int, ...] = (0,) * (len(TTFT_BOUNDS) + 1)
    ttft_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What one engine says of itself. `since`: Unix seconds at which `state` began; counts in requests and tokens.

    Of the KV pool's `kv_tokens`, `kv_used` belong to answers under way, `kv_cached` to prefixes; `kv_leaked` to nobody.
    """

    engine_id: str
    state: EngineState
    detail: str
    since: float
    model: ServedModel | None = None
    running: int = 0
    queued: int = 0
    kv_used: int = 0
    kv_tokens: int = 0
    kv_cached: int = 0
    kv_leaked: int = 0
    work: Work = field(default_factory=Work)


@dataclass(frozen=True, slots=True)
class LayerLoad:
    """The work of one layer's experts. `ranks`: token-expert pairs that each rank was given since its engine started.

    `rank_imbalance`, `expert_imbalance`: the busiest over the mean, 1.0 = even.
    """

    layer: int
    ranks: tuple[int, ...]
    rank_imbalance: float
    expert_imbalance: float


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """The work of one engine's experts. `rank_imbalance`: of all layers together, whose ranks wait for each other."""

    layers: tuple[LayerLoad, ...]
    rank_imbalance: float


class Registry(Protocol):
    """Reports expire when their engine stops renewing them; models are remembered: a restart unlearns none."""

    async def put(self, report: EngineReport, *, ttl: float) -> int:
        """Publish a report for `ttl` seconds; its model is remembered for good.

        Returns how many engines there are by now, those that were lost a moment ago counted in.
        """
        ...

    async def drop(self, engine_id: str) -> None:
        """Withdraw a report."""
        ...

    async def engines(self) -> list[EngineReport]:
        """Return the reports that have not expired."""
        ...

    async def put_experts(self, engine_id: str, load: ExpertLoad, *, ttl: float) -> None:
        """Publish what an engine's experts did, for `ttl` seconds."""
        ...

    async def experts(self, engine_ids: Sequence[str]) -> dict[str, ExpertLoad]:
        """Return what was published for these engines and has not expired; engines without experts are left out."""
        ...

    async def models(self) -> list[ServedModel]:
        """Return every model that an engine has announced on this store."""
        ...

    async def ping(self) -> None:
        """Return if the store answers. Raises Unavailable."""
        ...
