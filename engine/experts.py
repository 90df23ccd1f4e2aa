"""Expert load: how many tokens were given to which experts, from the schedulers to whoever asks.

Each scheduler counts into a file of its own, mapped into its memory (see `engine.expert_counter`); this is the other
end, which reads the files and adds them up. A file is counts of 8 bytes: a head, then one row a layer.

    HEAD   layers, experts, ranks, 0, …
    layer  what is not to be counted, then the token-expert pairs given to expert 0, 1, 2, …

Experts are physical ones, spare copies included: rank r holds the r-th share of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FOLDER = "ENGINE_EXPERT_LOAD"
"""Environment variable: the folder in which schedulers put their files. Without it nothing is counted."""
HEAD = 4
"""Numbers at the beginning of a file."""


@dataclass(frozen=True, slots=True)
class LayerLoad:
    """One layer's share, in token-expert pairs: what each rank's experts and the busiest of `experts` were given."""

    layer: int
    ranks: tuple[int, ...]
    experts: int
    busiest: int

    @property
    def total(self) -> int:
        """Return the token-expert pairs of the layer."""
        return sum(self.ranks)

    @property
    def rank_imbalance(self) -> float:
        """Return the busiest rank's load over the mean: how much longer the layer takes than it must."""
        return _over_mean(max(self.ranks), self.total, len(self.ranks))

    @property
    def expert_imbalance(self) -> float:
        """Return the busiest expert's load over the mean."""
        return _over_mean(self.busiest, self.total, self.experts)


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What was counted since the engine started, in layers with experts that have seen tokens."""

    layers: tuple[LayerLoad, ...]

    @property
    def rank_imbalance(self) -> float:
        """Return max over mean of the ranks for the whole model, 1.0 if nothing was counted.

        Ranks wait for each other in every layer, so maxima and means are summed over the layers: busy ranks of
        different layers do not make up for each other.
        """
        return _over_mean(
            sum(max(layer.ranks) for layer in self.layers),
            sum(layer.total for layer in self.layers),
            max((len(layer.ranks) for layer in self.layers), default=1),
        )


class ExpertFiles:
    """The files of one engine's schedulers: announced to them while they start, then opened, then read."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108 — a folder is made in it, by tempfile
        self._folder = Path(tempfile.mkdtemp(prefix="expert-load-", dir=memory if memory.is_dir() else None))
        self._files: list[BinaryIO] = []
        self._closing = ExitStack()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Have schedulers that start within count."""
        os.environ[FOLDER] = str(self._folder)
        try:
            yield
        finally:
            del os.environ[FOLDER]

    def open(self) -> None:
        """Open what the schedulers made and remove the names: nothing is left behind, however this process ends."""
        for path in sorted(self._folder.iterdir()):
            self._files.append(self._closing.enter_context(path.open("rb", buffering=0)))
        shutil.rmtree(self._folder)

    def read(self) -> ExpertLoad | None:
        """Return the load so far, None if no scheduler of this machine counts (a model without experts)."""
        import numpy  # noqa: PLC0415 — here already, by SGLang

        if not self._files:
            return None
        tables = [numpy.frombuffer(_whole(file), numpy.int64) for file in self._files]
        layers, experts, ranks = (int(n) for n in tables[0][:3])
        counts = numpy.sum([table[HEAD:].reshape(layers, -1)[:, 1:] for table in tables], axis=0)
        by_rank, busiest = counts.reshape(layers, ranks, -1).sum(axis=2), counts.max(axis=1)
        return ExpertLoad(
            tuple(
                LayerLoad(layer, tuple(int(n) for n in by_rank[layer]), experts, int(busiest[layer]))
                for layer in range(layers)
                if busiest[layer]
            )
        )

    def close(self) -> None:
        """Let the files go. Idempotent."""
        self._closing.close()
        self._files.clear()
        shutil.rmtree(self._folder, ignore_errors=True)  # never opened: the start failed


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _over_mean(greatest: int, total: int, count: int) -> float:
    return greatest * count / total if total else 1.0
