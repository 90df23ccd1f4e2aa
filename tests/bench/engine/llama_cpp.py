"""llama.cpp's server on the GGUF file that the weights come from; it computes with 8-bit activations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.bench.engine.memory import held
from tests.bench.engine.ours import KV_TOKENS, MOST_STREAMS
from tests.bench.engine.questions import ANSWER, LONG, PROMPT, Ids, behind, examples, prompts, rate

_READY_SECONDS = 60.0


class LlamaCpp:
    """The server with continuous batching, one cache for all streams. See `questions.Subject`."""

    def __init__(self, program: Path, model: Path) -> None:
        self._program, self._model = program, model
        self._client = httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=MOST_STREAMS))

    async def start(self) -> None:
        """Launch, then answer once. Raises RuntimeError if it is not ready within a minute."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        options = {
            "-m": self._model,
            "-t": len(os.sched_getaffinity(0)),
            "-c": KV_TOKENS,
            "-np": MOST_STREAMS,
            "-b": 2048,
            "-cram": 1024,
            "--port": port,
        }
        command = [str(part) for option in options.items() for part in option]
        self._process = subprocess.Popen(
            [str(self._program), *command, "-kvu", "--no-webui"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await self._ready()
        await self._run(prompts("warm", 1, 8)[0], 4)

    async def decode(self, seed: int, streams: int) -> float:
        """See Subject."""
        return await rate([self._counts(ids) for ids in prompts(("decode", seed), streams, PROMPT)])

    async def prefill(self, seed: int) -> float:
        """See Subject."""
        return LONG / await self._time(prompts(("prefill", seed), 1, LONG)[0])

    async def first(self, seed: int, cached: bool) -> float:
        """See Subject."""
        prefix, new = behind(seed, cached)
        if prefix:
            await self._run(prefix, 1)
        return 1000 * await self._time(prefix + new)

    async def ids(self) -> list[list[int]]:
        """See Subject."""
        return [await self._run(ids, 32) for ids in examples()]

    def memory(self, private: bool = False) -> float:
        """Return MB of the server alone."""
        return held(self._process.pid, private)

    async def close(self) -> None:
        """See Subject."""
        await self._client.aclose()
        self._process.terminate()
        self._process.wait(20)

    async def _ready(self) -> None:
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await self._client.get(f"{self._url}/health")).status_code == 200:
                    return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{self._program} was not ready within {_READY_SECONDS:.0f} s")

    async def _counts(self, ids: Ids) -> AsyncIterator[int]:
        async for tokens in self._stream(ids, ANSWER):
            yield len(tokens)

    async def _time(self, ids: Ids) -> float:
        begin = time.perf_counter()
        await self._run(ids, 1)
        return time.perf_counter() - begin

    async def _run(self, ids: Ids, count: int) -> list[int]:
        return [token async for tokens in self._stream(ids, count) for token in tokens]

    async def _stream(self, ids: Ids, count: int) -> AsyncIterator[list[int]]:
        """Yield the ids of each event of one answer."""
        question: dict[str, Any] = {
            "prompt": ids,
            "n_predict": count,
            "temperature": 0.0,
            "ignore_eos": True,
            "cache_prompt": True,
            "return_tokens": True,
            "stream": True,
        }
        async with self._client.stream("POST", f"{self._url}/completion", json=question) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: ") and (tokens := orjson.loads(line[6:]).get("tokens")):
                    yield tokens


def _free_port() -> int:
    with socket.socket() as held_shortly:
        held_shortly.bind(("127.0.0.1", 0))
        return held_shortly.getsockname()[1]
