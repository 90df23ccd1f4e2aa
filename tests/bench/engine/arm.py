"""One arm of the engine benchmark, in its own process: questions on standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from pathlib import Path

from tests.bench.engine.questions import Subject


def subject(name: str, model: Path, program: Path | None) -> Subject:
    """Return an arm by its name. `model`: a folder, or a GGUF file for llama.cpp's `program`."""
    if program is not None:
        from tests.bench.engine.llama_cpp import LlamaCpp

        return LlamaCpp(program, model)
    if name == "transformers":
        from tests.bench.engine.hugging import Transformers

        return Transformers(model)
    from tests.bench.engine.ours import Ours

    return Ours(name, model)


async def main(arm: Subject) -> None:
    """Answer questions until standard input ends."""
    try:
        await arm.start()
        _say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            question = json.loads(line)
            answer = getattr(arm, question.pop("op"))(**question)
            _say(await answer if inspect.isawaitable(answer) else answer)
    finally:
        await arm.close()


def _say(answer: object) -> None:
    print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    paths = [Path(path) for path in sys.argv[2:]]
    # Made before there is an event loop: ours forks its schedulers, as the engine role does.
    made = subject(sys.argv[1], paths[0], paths[1] if len(paths) > 1 else None)
    asyncio.run(main(made))
