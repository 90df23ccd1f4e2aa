"""SIGKILL of SGLang's scheduler with answers at every moment: each comes whole, with the text of an undisturbed run."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from chatserver.settings import Settings
from tests.e2e.conftest import PLACES
from tests.e2e.following import Follower
from tests.program import Program

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

TOKENS = 160
MANY = 4 * TOKENS
"""What is to be in mid-answer has not ended when all others are where they should be, however busy the machine is."""
FEW = 8
SHORT = "Tell me a story about a lighthouse keeper."
LONG = "Read this list, then tell a story. " + " ".join(f"Item {n} is a shell." for n in range(300))
"""Seconds of prefill."""
RESTARTED = 240.0
"""Seconds within which an answer has ended, a restart of SGLang on a busy machine included."""


async def ask(program: Program, text: str = SHORT, tokens: int = TOKENS) -> str:
    """Begin an answer, however often it takes, and return its id."""
    body = {"model": "smollm2-135m-instruct", "input": text, "temperature": 0, "max_output_tokens": tokens}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{program.url}/v1/responses", json={**body, "ignore_eos": True, "background": True}
        )
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def follow(program: Program, response_id: str, **more) -> Follower:
    return await Follower(program.url, response_id, give_up=RESTARTED, **more).run()


async def undisturbed(program: Program, text: str = SHORT, tokens: int = TOKENS) -> str:
    return (await follow(program, await ask(program, text, tokens))).text


class Watch:
    """Followers of several answers, and where each of them was when the scheduler was killed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.kinds: dict[str, str] = {}
        """The last event of each answer that tells of a state."""
        self.killed_at = 0.0
        self._followers: dict[str, Follower] = {}
        self._tasks: list[asyncio.Task[Follower]] = []

    def start(self, name: str, response_id: str) -> None:
        """Follow an answer under a name."""

        def on_event(_: Follower, event: dict) -> None:
            if not self.killed_at and event["type"] in ("response.queued", "response.in_progress"):
                self.kinds[name] = event["type"]

        self._followers[name] = Follower(self.program.url, response_id, on_event, give_up=RESTARTED)
        self._tasks.append(asyncio.create_task(self._followers[name].run()))

    async def until(self, name: str, tokens: int) -> None:
        """Wait until an answer has that many tokens."""
        async with asyncio.timeout(60):
            while self._followers[name].tokens < tokens:
                await asyncio.sleep(0.002)

    async def known(self, name: str) -> None:
        """Wait until an answer's state has been told."""
        async with asyncio.timeout(60):
            while name not in self.kinds:
                await asyncio.sleep(0.002)

    def kill(self) -> dict[str, tuple[str, int]]:
        """SIGKILL of the scheduler; return (state, tokens) of each answer."""
        (scheduler,) = self.program.schedulers()
        scheduler.kill()
        self.killed_at = time.monotonic()
        return {name: (self.kinds[name], one.tokens) for name, one in self._followers.items()}

    async def ends(self) -> dict[str, Follower]:
        """Wait for all of them."""
        await asyncio.gather(*self._tasks)
        return self._followers


async def test_queued_early_and_late_answers(real):
    """All places taken, one job in the queue, one answer over, one question on its way."""
    expected, long = await undisturbed(real), await undisturbed(real, tokens=MANY)
    over = await ask(real)
    assert (await follow(real, over)).text == expected
    watch = Watch(real)
    for number in range(PLACES - 1):
        watch.start(f"mid-answer {number}", await ask(real, tokens=MANY))
    for number in range(PLACES - 1):
        await watch.until(f"mid-answer {number}", TOKENS // 5)
    watch.start("first token", await ask(real))
    # it has the last place: of two that wait in two shards either may get it
    await watch.until("first token", 1)
    watch.start("queued", await ask(real))
    await watch.known("queued")
    moments = watch.kill()
    watch.start("before admission", await ask(real))
    assert moments["queued"] == ("response.queued", 0)
    assert 1 <= moments.pop("first token")[1] < TOKENS
    mid = [tokens for name, (_, tokens) in moments.items() if "mid" in name]
    assert len(mid) == PLACES - 1 and all(TOKENS // 5 <= tokens < MANY for tokens in mid)
    ended = await watch.ends()
    for name, one in ended.items():
        wanted = (long, MANY) if "mid" in name else (expected, TOKENS)
        assert (one.text, one.end["usage"]["output_tokens"]) == wanted, name
    told = [
        one.interrupted_at - watch.killed_at
        for name, one in ended.items()
        if "mid" in name or "first" in name
    ]
    assert all(0 < after < Settings().lease for after in told), "nobody released them"
    assert (await follow(real, over)).text == expected


async def test_an_answer_in_prefill_and_one_at_its_last_token(real):
    """One whose prompt is half computed; one that has all its tokens, but not its end."""
    expected = await undisturbed(real, SHORT, FEW)
    watch = Watch(real)
    watch.start("last token", await ask(real, SHORT, FEW))
    await watch.until("last token", FEW - 1)
    watch.start("prefill", await ask(real, LONG, FEW))
    async with asyncio.timeout(60):
        while watch.kinds.get("prefill") != "response.in_progress":
            await asyncio.sleep(0.002)
    moments = watch.kill()
    assert moments["prefill"] == ("response.in_progress", 0) and moments["last token"][1] >= FEW - 1
    ended = await watch.ends()
    assert {one.end["usage"]["output_tokens"] for one in ended.values()} == {FEW}
    assert (ended["last token"].text, ended["prefill"].text) == (expected, await undisturbed(real, LONG, FEW))
