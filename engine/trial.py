"""Starts the engine, has it write a few tokens, and says how that went.

    python -m engine.trial FOLDER [--context TOKENS] [--profile NAME]

It prints one JSON line: {"ok": true, …} or {"ok": false, "error": …}

In a process of its own, because SGLang takes one over: see `engine.sglang_engine`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.contract import EngineError, GenerateRequest, Sampling
from engine.launch_errors import explained
from engine.launch_record import recorded
from engine.profile import load
from engine.ranks import Ranks, fork
from engine.settings import EngineSettings
from engine.sglang_engine import SglangEngine

_ID = "0" * 32
_TOKENS = 8


def main(arguments: Sequence[str]) -> int:
    """Try the model folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="engine.trial")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--context", type=int)
    parser.add_argument("--profile")
    options = parser.parse_args(arguments)
    settings = _settings(options.folder, options.context, options.profile)
    with recorded() as said:
        try:
            answer = asyncio.run(_try(settings, fork(settings)))
        except EngineError as error:
            answer = {"ok": False, "error": str(explained(error, said()))}
    print(json.dumps(answer), flush=True)
    return 0 if answer["ok"] else 1


def _settings(folder: Path, context: int | None, profile: str | None) -> EngineSettings:
    settings = EngineSettings(folder, "trial", context=context)
    if profile is None:
        return settings
    chosen = load(profile)
    for variable, value in chosen.environment.items():
        os.environ.setdefault(variable, value)
    return chosen.engine_settings(settings)


async def _try(settings: EngineSettings, forked: Ranks | None) -> dict[str, Any]:
    engine = SglangEngine(settings, forked)
    began = time.monotonic()
    try:
        await engine.start(lambda phase: None)
        ready = time.monotonic() - began
        tokenizer = engine.tokenizer
        ids = (*tokenizer.head(None), *tokenizer.segment("user", "Hello!"), *tokenizer.cue())
        request = GenerateRequest(_ID, ids, Sampling(max_tokens=_TOKENS, temperature=0.0))
        written = [token async for chunk in engine.generate(request) for token in chunk.ids]
        card = engine.card
    finally:
        await engine.close()
    return {
        "ok": True,
        "start_seconds": round(ready, 1),
        "text": tokenizer.decode(written),
        "tokens": len(written),
        "kv_tokens": card.kv_tokens,
        "context": card.context,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
