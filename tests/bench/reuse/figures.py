"""What an arm came to, its row of the table, and the goals that it meets or misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.report import percentile
from tests.bench.reuse.arms import Arm, Scene

HEADER = (
    *("policy", "turns", "reuse", "share", "prefill p50", "p99", "max", "over p99", "over max"),
    *("TTFT p50", "p99", "p99/p50", "cuts", "dropped", "idle", "wasted", "told", "probe"),
)
MIN_REUSE, MIN_SHARE, MAX_NAIVE_SHARE, MAX_SPREAD, MAX_IDLE_COST = 0.99, 0.93, 0.40, 1.5, 0.05


@dataclass(slots=True)
class Figures:
    """Times in milliseconds, the rest in tokens and times. One entry a turn in the lists.

    `over`: tokens prefilled in the foreground beyond what is new: message, template, the answer's last token.
    `mistold`: tokens by which the cache endpoint was wrong about what the turn would prefill.
    """

    prefill: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)
    mistold: list[int] = field(default_factory=list)
    cuts: int = 0
    dropped: int = 0
    probe: int = 0
    reuse: float = 0.0
    share: float = 0.0
    idle: int = 0
    wasted: int = 0

    @property
    def spread(self) -> float:
        """TTFT, p99 over p50."""
        return percentile(self.ttft, 0.99) / percentile(self.ttft, 0.5)

    def row(self, name: str) -> tuple[object, ...]:
        """Return a row of the table."""
        parts: list[object] = [name, len(self.prefill), f"{self.reuse:.4f}", f"{self.share:.3f}"]
        parts += [percentile(self.prefill, 0.5), percentile(self.prefill, 0.99), max(self.prefill)]
        parts += [percentile(self.over, 0.99), max(self.over)]
        parts += [percentile(self.ttft, 0.5), percentile(self.ttft, 0.99), self.spread]
        return (
            *parts,
            self.cuts,
            self.dropped,
            self.idle,
            self.wasted,
            max(self.mistold, default=0),
            self.probe,
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what was found, what was wanted, and whether that is met."""

    what: str
    found: float
    wanted: str
    met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'}  {self.what}: {self.found:.3f} (wanted {self.wanted})"


def goals(scene: Scene, results: Mapping[Arm, Figures]) -> list[Goal]:
    """Return the goals of a scene's arms."""
    found = []
    for arm, figures in results.items():
        name = f"{scene.name}, {arm.name}"
        found.append(_least(f"{name}: reuse", figures.reuse, MIN_REUSE))
        found.append(_most(f"{name}: other tenant's probe", figures.probe, 0))
        if figures.mistold:
            found.append(_most(f"{name}: cache endpoint wrong by", max(figures.mistold), scene.page))
        if arm.naive:
            found.append(_most(f"{name}: share cached", figures.share, MAX_NAIVE_SHARE))
        if arm.idle:
            found.append(_least(f"{name}: share cached", figures.share, MIN_SHARE))
            over = percentile(figures.over, 0.99)
            found.append(_most(f"{name}: foreground prefill beyond what is new, p99", over, scene.page))
        if arm.idle and scene.conversations == 1:
            found.append(_most(f"{name}: TTFT p99/p50", figures.spread, MAX_SPREAD))
    return found + _costs(scene, results)


def _costs(scene: Scene, results: Mapping[Arm, Figures]) -> list[Goal]:
    """Compare each policy's TTFT with idle work to the same without."""
    by_name = {arm.name: figures for arm, figures in results.items()}
    found = []
    for arm, figures in results.items():
        without = by_name.get(arm.name.removesuffix(" + idle"))
        if arm.idle and without is not None:
            cost = percentile(figures.ttft, 0.99) / percentile(without.ttft, 0.99) - 1
            found.append(_most(f"{scene.name}, {arm.name}: cost in TTFT p99", cost, MAX_IDLE_COST))
    return found


def _least(what: str, found: float, wanted: float) -> Goal:
    return Goal(what, found, f"≥ {wanted:g}", found >= wanted)


def _most(what: str, found: float, wanted: float) -> Goal:
    return Goal(what, found, f"≤ {wanted:g}", found <= wanted)
