"""How long until it answers: start to /readyz, the engine's part of it, and a killed engine to the next token.

    python -m tests.bench.start [--rounds N]

Second starts: model prepared, kernels compiled, bytecode written. Memory is that of idle processes: PSS divides what
processes share among them, so the engine's processes can be summed; USS is what one has for itself.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from openai import OpenAI

from tests.bench.report import keep, percentile, table
from tests.program import KERNELS, Program

MODEL = "smollm2-135m-instruct"
ROLES = ("engine", "web", "store")
PAUSE = 1.0
"""Seconds without a token that only a restart makes."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tests.bench.start")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    KERNELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        _once(Path(folder) / "first")  # whatever is made once is made now
        seen = [_once(Path(folder) / str(number)) for number in range(rounds)]
    rows = [
        (name, *(percentile([figures[name] for figures in seen], share) for share in (0.5, 0.0, 1.0)))
        for name in seen[0]
    ]
    print(table(f"{rounds} starts", ("", "median", "least", "most"), rows))
    print(keep("start", {"rounds": seen}))


def _once(data_dir: Path) -> dict[str, float]:
    with Program(data_dir, model=MODEL) as program:
        figures = {"start to ready, s": program.wait_ready()}
        figures["of it the engine, s"] = _said_ready(program)
        figures |= _memory(program)
        figures["kill to next token, s"] = _interrupted(program)
    return figures


def _said_ready(program: Program) -> float:
    """Return the supervisor's own figure, from the engine's exec to its report."""
    deadline = time.monotonic() + 10
    while (found := re.search(r"engine ready \(([\d.]+) s\)", program.tail())) is None:
        assert time.monotonic() < deadline, program.tail()
        time.sleep(0.05)
    return float(found[1])


def _memory(program: Program) -> dict[str, float]:
    """Return the memory of each role's processes in MB: PSS of all, USS of each of the engine's."""
    figures = {}
    for role in ROLES:
        process = psutil.Process(program.pid(role))
        found = [one.memory_full_info() for one in (process, *process.children(recursive=True))]
        figures[f"{role}, MB"] = sum(one.pss for one in found) / 1e6
        if role == "engine":
            figures |= {f"engine process {i} alone, MB": one.uss / 1e6 for i, one in enumerate(found)}
    return figures


def _interrupted(program: Program) -> float:
    """Kill the engine in mid-answer; return the seconds until the answer goes on."""
    times = _token_times(program)
    for _ in range(20):
        last = next(times)
    program.kill("engine")
    killed = time.monotonic()
    for at in times:
        if at - last > PAUSE:
            return at - killed
        last = at
    raise AssertionError("the answer ended before the engine was killed")


def _token_times(program: Program) -> Iterator[float]:
    with (
        OpenAI(base_url=f"{program.url}/v1", api_key="unused", timeout=120) as client,
        client.responses.create(
            model=MODEL, input="Tell a long story.", stream=True, max_output_tokens=1000
        ) as events,
    ):
        for event in events:
            if event.type == "response.output_text.delta":
                yield time.monotonic()


if __name__ == "__main__":
    main()
