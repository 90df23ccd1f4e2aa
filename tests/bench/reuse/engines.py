"""What the reuse benches run on: an engine with room enough, and an empty store."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

DATA = Path(os.environ.get("CHATSERVER_TEST_DATA") or Path(__file__).parents[3] / ".data")
MODEL = "smollm2-135m-instruct"
CONTEXT = 1024
"""The window in tokens: small, so that cuts come often."""


@contextlib.asynccontextmanager
async def started(model: str, data_dir: Path, context: int, page: int, conversations: int):
    """Start the engine that was asked for, with room in its KV pool for two windows of each conversation."""
    if model == "scripted":
        from engine.scripted import ScriptedEngine

        engine = ScriptedEngine(tokens_per_second=1000.0, ttft_ms=2.0, context=context, page=page)
    else:
        from engine.models import prepare
        from engine.settings import EngineSettings
        from engine.sglang_engine import SglangEngine

        path = await asyncio.to_thread(prepare, model, data_dir, lambda *_: None)
        engine = SglangEngine(
            EngineSettings(
                model_path=path,
                name=model,
                context=context,
                kv_tokens=max(8, 2 * conversations) * context,
                extra={"page_size": page},
            )
        )
    await engine.start(print)
    try:
        yield engine
    finally:
        await engine.close()
