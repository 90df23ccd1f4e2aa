"""The portable CPU engine against SGLang's own attention, transformers and llama.cpp, on the default model.

    python -m tests.bench.engine [--arms native,torch_native,...] [--rounds N] [--streams 1,4,16,64]
                                 [--llama PATH] [--data DIR]

    native         our attention and our kernels (what `make serve` runs)
    torch          our attention on torch alone (no numba)
    torch_native   SGLang's attention, no kernels of ours
    transformers   generate() of the same float32 weights, one batch
    llama.cpp      llama-batched-bench on the GGUF file that the weights come from; it computes with 8-bit
                   activations. Give the program with --llama or LLAMA_BATCHED_BENCH; without it the arm is left out.

Every arm lives in a process of its own; rounds are interleaved, medians are quoted. `same ids` says whether an arm's
greedy answers equal those of torch_native.
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
from tests.bench.report import keep, table

ARMS = ("native", "torch", "torch_native", "transformers")
STREAMS = "1,4,16,64"
PROMPT, ANSWER, LONG, CACHED, NEW = 100, 48, 1024, 4000, 20
TIMEOUT = 600


class Arm:
    """One arm's process: a line of JSON in, a line of JSON out."""

    def __init__(self, name: str, model: Path) -> None:
        self.name = name
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.engine.arm", name, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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


class LlamaCpp:
    """llama-batched-bench, run anew for every question."""

    name = "llama.cpp"

    def __init__(self, program: str, model: Path) -> None:
        self._program, self._model = program, model
        self.start_seconds = None

    def ask(self, op: str, **question: Any) -> Any:
        """Return tokens a second, or None for what the program does not measure."""
        if op == "decode":
            return self._run(PROMPT, ANSWER, question["streams"])["speed_tg"]
        return self._run(LONG, 1, 1)["speed_pp"] if op == "prefill" else None

    def close(self) -> None:
        """Do nothing: no process is kept."""

    def _run(self, prompt: int, answer: int, streams: int) -> dict[str, Any]:
        sizes = ["-npp", prompt, "-ntg", answer, "-npl", streams, "-c", (prompt + answer) * streams + 64]
        threads = ["-t", len(os.sched_getaffinity(0)), "-b", 2048, "--output-format", "jsonl"]
        command = [self._program, "-m", self._model, *sizes, *threads]
        out = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT, check=True
        )
        return json.loads(next(line for line in out.stdout.splitlines() if line.startswith("{")))


def main() -> None:
    """Measure and print."""
    options = _options()
    model = prepare("smollm2-135m-instruct", options.data, lambda *progress: None)
    arms: list[Any] = [Arm(name, model) for name in options.arms.split(",")]
    if options.llama:
        arms.append(LlamaCpp(options.llama, _gguf()))
    figures: dict[str, dict[str, list[float]]] = {arm.name: {} for arm in arms}
    try:
        for number in range(options.rounds):
            for name, question in _questions(number, options.streams):
                for arm in arms:
                    figure = arm.ask(**question)
                    if figure is not None:
                        figures[arm.name].setdefault(name, []).append(figure)
        ids = {arm.name: arm.ask(op="ids") for arm in arms}
        for arm in arms:
            if (memory := arm.ask(op="memory")) is not None:
                figures[arm.name]["memory MB"] = [memory]
            if arm.start_seconds is not None:
                figures[arm.name]["start s"] = [arm.start_seconds]
    finally:
        for arm in arms:
            arm.close()
    print(_table(figures, ids))
    print(keep("engine", {"figures": figures, "rounds": options.rounds}))


def _questions(number: int, streams: str) -> list[tuple[str, dict[str, Any]]]:
    decodes = [
        (f"decode x{n}", {"op": "decode", "streams": n, "seed": number}) for n in map(int, streams.split(","))
    ]
    return [
        *decodes,
        ("prefill", {"op": "prefill", "seed": number}),
        ("TTFT ms, 4000 cached", {"op": "cached", "seed": number}),
    ]


def _table(figures: dict[str, dict[str, list[float]]], ids: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for arm in figures.values() for name in arm))
    reference = "torch_native" if "torch_native" in figures else next(iter(figures))
    rows = []
    for name in names:
        medians = {arm: statistics.median(found[name]) for arm, found in figures.items() if name in found}
        base = medians.get(reference)
        cells = [f"{medians[arm]:.1f}" if arm in medians else "-" for arm in figures]
        ratios = [f"{medians[arm] / base:.2f}x" if arm in medians and base else "-" for arm in figures]
        rows.append([name, *cells, *ratios])
    same = ["-" if ids[arm] is None else ("yes" if ids[arm] == ids[reference] else "NO") for arm in figures]
    rows.append(["same ids", *same, *("" for _ in figures)])
    header = ["tokens/s unless said", *figures, *(f"{arm} /{reference}" for arm in figures)]
    return table(f"CPU engine, SmolLM2-135M, {os.cpu_count()} cores, medians", header, rows)


def _gguf() -> Path:
    from engine.models import smollm2

    return smollm2._locate()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="benchmark of the CPU engine")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default=STREAMS)
    parser.add_argument("--llama", default=os.environ.get("LLAMA_BATCHED_BENCH"))
    parser.add_argument("--data", type=Path, default=Path(".data"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
