"""The portable CPU engine against SGLang's own attention, transformers and llama.cpp, on the default model.

    python -m tests.bench.engine [--arms native,torch_native,...] [--rounds N] [--streams 1,4,16,32,64]
                                 [--llama PATH] [--data DIR]

    native         our attention and our kernels (what `make serve` runs)
    int8           the same with weights rounded to 8 bits (ENGINE_WEIGHTS=int8)
    torch          our attention on torch alone (no numba)
    torch_native   SGLang's attention, no kernels of ours
    transformers   generate() of the same float32 weights, one batch
    llama.cpp      llama-server on the GGUF file that the weights come from; it computes with 8-bit activations.
                   Give the program with --llama or LLAMA_SERVER; without it the arm is left out.

Every arm lives in a process of its own; rounds are interleaved, medians are quoted. `same ids` says whether an arm's
greedy answers equal those of torch_native (llama.cpp's need not: it rounds activations).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.models.prepare import prepare
from tests.bench.engine import goals
from tests.bench.report import keep, table

ARMS = ("native", "torch_native", "transformers")
STREAMS = "1,4,16,32,64"


class Arm:
    """One arm's process: a line of JSON in, a line of JSON out."""

    def __init__(self, name: str, *paths: Path) -> None:
        self.name = name
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.engine.arm", name, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Where other programs want the cores too, threads that spin cost most of the speed; llama.cpp, whose
            # server ends with its question, loses most of its own when they sleep.
            env=dict(os.environ) if name == goals.LLAMA else {"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        )
        self._answer()
        self.start_seconds = time.perf_counter() - begin

    def ask(self, **question: Any) -> Any:
        """Return the arm's answer to one question."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)["answer"]
        raise RuntimeError(f"{self.name} ended with {self._process.wait(60)}; its errors are above")


def main() -> None:
    """Measure and print."""
    options = _options()
    model = prepare("smollm2-135m-instruct", options.data, lambda *progress: None)
    arms = [Arm(name, model) for name in options.arms.split(",")]
    if options.llama:
        arms.append(Arm(goals.LLAMA, _gguf(), options.llama))
    try:
        figures, ids = _measure(arms, options)
    finally:
        for arm in arms:
            arm.close()
    medians = {
        arm: {name: statistics.median(found) for name, found in of.items()} for arm, of in figures.items()
    }
    judged = goals.judge(medians)
    print(_table(medians, ids))
    print(table("Goals", ["", "figure", "goal", "", "limited by"], judged))
    print(keep("engine", {"figures": figures, "goals": judged, "rounds": options.rounds}))


def _measure(
    arms: list[Arm], options: argparse.Namespace
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Any]]:
    """Return all figures by arm and name, and the greedy answers by arm."""
    figures: dict[str, dict[str, list[float]]] = {arm.name: {} for arm in arms}
    for number in range(options.rounds):
        for name, question in _questions(number, options.streams):
            for arm in arms:
                if (figure := arm.ask(**question)) is not None:
                    figures[arm.name].setdefault(name, []).append(figure)
                    print(
                        f"round {number + 1}: {arm.name}: {name}: {figure:.1f}", file=sys.stderr, flush=True
                    )
    ids = {arm.name: arm.ask(op="ids") for arm in arms}
    for arm in arms:
        figures[arm.name][goals.MEMORY] = [arm.ask(op="memory")]
        figures[arm.name][goals.PRIVATE] = [arm.ask(op="memory", private=True)]
        figures[arm.name][goals.START] = [arm.start_seconds]
    return figures, ids


def _questions(number: int, streams: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        *(
            (goals.decode(n), {"op": "decode", "streams": n, "seed": number})
            for n in map(int, streams.split(","))
        ),
        (goals.PREFILL, {"op": "prefill", "seed": number}),
        (goals.EMPTY, {"op": "first", "seed": number, "cached": False}),
        (goals.BEHIND, {"op": "first", "seed": number, "cached": True}),
    ]


def _table(medians: dict[str, dict[str, float]], ids: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for arm in medians.values() for name in arm))
    reference = "torch_native" if "torch_native" in medians else next(iter(medians))
    first = next(iter(medians))
    rows = []
    for name in names:
        own = medians[first].get(name)
        cells = [f"{arm[name]:.1f}" if name in arm else "-" for arm in medians.values()]
        ratios = [
            f"{own / arm[name]:.2f}x" if name in arm and own else "-" for arm in list(medians.values())[1:]
        ]
        rows.append([name, *cells, *ratios])
    same = ["yes" if ids[arm] == ids[reference] else "NO" for arm in medians]
    rows.append(["same ids", *same, *("" for _ in list(medians)[1:])])
    header = ["tokens/s unless said", *medians, *(f"{first} /{arm}" for arm in list(medians)[1:])]
    return table(f"CPU engine, SmolLM2-135M, {os.cpu_count()} cores, medians", header, rows)


def _gguf() -> Path:
    from engine.models import smollm2

    return smollm2._locate()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="benchmark of the CPU engine")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default=STREAMS)
    parser.add_argument("--llama", type=Path, default=os.environ.get("LLAMA_SERVER"))
    parser.add_argument("--data", type=Path, default=Path(".data"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
