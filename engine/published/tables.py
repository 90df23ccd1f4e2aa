"""The tables of this folder, read once: GPUS, RATES, MODELS."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU. `memory` in bytes. `fixed`: False for host memory, which everything shares."""

    name: str
    memory: int
    fp8: bool
    fixed: bool = True


@dataclass(frozen=True, slots=True)
class Rate:
    """What somebody measured, in tokens/s for a node of eight GPUs. `total`: input and output together.

    `prefill_unit`, `decode_unit`: nodes of a unit.
    """

    family: str
    gpu: str
    setup: str
    note: str
    source: str
    prefill_unit: int
    decode_unit: int
    prefill: int | None = None
    decode: int | None = None
    total: int | None = None


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text())


GPUS = {
    name: Gpu(name, entry["memory_mib"] * 2**20, entry["fp8"]) for name, entry in _toml("gpus.toml").items()
}
"""Name -> GPU."""
RATES = tuple(Rate(**entry) for entry in _toml("rates.toml")["rate"])
MODELS = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
"""Models whose configuration is here."""


def config(model: str) -> dict[str, Any]:
    """Return the configuration of one of MODELS."""
    return json.loads((FOLDER / f"{model}.json").read_text())["config"]
