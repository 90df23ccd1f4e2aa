"""Every fault at every moment of an answer: the text is the undisturbed one, each token once and in order."""

import asyncio
import itertools
import secrets
import signal
import time

import httpx
import orjson
import pytest

from chatserver.settings import Settings
from tests.e2e.following import Dropped, Follower
from tests.program import Program

pytestmark = pytest.mark.e2e

TOKENS = 40
LONG = 5 * TOKENS
"""Of an answer that a killed engine must not have ended before its reader, late on a busy machine, kills it."""
ENDLESS = 7000
"""Of an answer that only a stop ends: it takes a minute."""
PLACES = 2
ASK = {
    "model": "scripted",
    "input": "Tell me about tides.",
    "temperature": 0,
    "max_output_tokens": TOKENS,
    "ignore_eos": True,
    "background": True,
}
PAUSE = 1.5
"""Seconds for which the store stands still."""
MOMENTS = ("before admission", "queued", "prefill", "first token", "mid-answer", "last token", "after")
BEFORE_THE_END = ("queued", "prefill", "first token", "mid-answer")
IN_ITS_MIDDLE = ("prefill", "first token", "mid-answer")
FAULTS = ("client drop", "web kill", "engine kill", "store kill", "store pause", "stop")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A program with few places, so that answers queue, and a prefill that lasts long enough to be hit."""
    settings = {
        "SCRIPTED_TOKENS_PER_SECOND": "100",
        "SCRIPTED_TTFT_MS": "150",
        "CHATSERVER_MAX_RUNNING": str(PLACES),
    }
    with Program(tmp_path_factory.mktemp("matrix") / "data", model="scripted", **settings) as made:
        made.wait_ready()
        yield made


@pytest.fixture(scope="module")
def undisturbed(program):
    """The texts that nothing has disturbed, by their lengths in tokens."""
    return {tokens: whole(program, tokens) for tokens in (TOKENS, LONG)}


def whole(program: Program, tokens: int) -> str:
    body = {**ASK, "background": False, "max_output_tokens": tokens}
    response = httpx.post(f"{program.url}/v1/responses", json=body, timeout=60)
    return response.json()["output"][0]["content"][0]["text"]


class Disturbance:
    """Does one thing to the program, once, at one moment."""

    def __init__(self, program: Program, moment: str, fault: str) -> None:
        self.at = 0.0
        """`time.monotonic()` of the fault; 0 = not yet."""
        self.response_id = ""
        self._program, self._moment, self._fault = program, moment, fault
        self._stopping: asyncio.Task[None] | None = None

    def on_event(self, follower: Follower, event: dict) -> None:
        """Strike if this is the moment."""
        if not self.at and self._is_now(follower, event["type"]):
            self.strike()

    def _is_now(self, follower: Follower, kind: str) -> bool:
        if self._moment == "queued":
            return kind == "response.queued"
        if self._moment == "prefill":
            return kind == "response.in_progress"
        if self._moment == "after":
            return bool(follower.end)
        at = {"first token": 1, "mid-answer": TOKENS // 2, "last token": TOKENS}[self._moment]
        return follower.tokens >= at

    async def strike_before(self) -> None:
        """Do it as the question is on its way: no id is known yet to read from, to stop, or to come back to."""
        key = secrets.token_hex(8)
        if self._fault == "client drop":
            self.at = time.monotonic()
            await post_and_go(self._program, key)
        elif self._fault == "stop":
            self.response_id = "resp_00" + 30 * "0"
            with pytest.raises(AssertionError, match="404"):
                await self._stop()
            self.at = time.monotonic()
        else:
            self.strike()
        self.response_id = await ask_again(self._program, key)
        assert self.response_id == await ask_again(self._program, key), "one key, two generations"

    def strike(self) -> None:
        """Do it."""
        self.at = time.monotonic()
        if self._fault == "client drop":
            raise Dropped
        if self._fault == "stop":
            self._stopping = asyncio.create_task(self._stop())
        elif self._fault == "store pause":
            self._program.kill("store", signal.SIGSTOP)
            asyncio.get_running_loop().call_later(PAUSE, self._program.kill, "store", signal.SIGCONT)
        else:
            self._program.kill(self._fault.removesuffix(" kill"))

    async def settle(self) -> None:
        """Wait until the program is whole again."""
        if self._stopping is not None:
            await self._stopping
        if self._fault == "store pause":
            await asyncio.sleep(max(0.0, self.at + PAUSE + 0.1 - time.monotonic()))
        await asyncio.to_thread(self._program.wait_ready)

    async def _stop(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            url = f"{self._program.url}/v1/responses/{self.response_id}/cancel"
            answer = await client.post(url)
            assert answer.status_code == 200, answer.status_code


async def ask(program: Program, **more: object) -> str:
    """Begin an answer in the background and return its id."""
    async with httpx.AsyncClient(timeout=20) as client:
        response = await client.post(f"{program.url}/v1/responses", json={**ASK, **more})
    assert response.status_code == 200, response.text
    return response.json()["id"]


async def post_and_go(program: Program, key: str) -> None:
    """Send the question and close the connection at once, as an app does that is put away."""
    body = orjson.dumps({**ASK, "background": False})
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", program.port)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def ask_again(program: Program, key: str) -> str:
    """Ask until the question is taken, with one idempotency key, as the SDKs do; return the answer's id."""
    async with asyncio.timeout(90), httpx.AsyncClient(timeout=30) as client:
        while True:
            try:
                answer = await client.post(
                    f"{program.url}/v1/responses", json=ASK, headers={"Idempotency-Key": key}
                )
                if answer.status_code == 200:
                    return answer.json()["id"]
                assert answer.status_code in (502, 503), answer.text
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("moment", "fault"), list(itertools.product(MOMENTS, FAULTS)))
async def test_fault(program, undisturbed, moment, fault):
    """The answer comes whole and once, or stopped with what was written; so does what is read afterwards."""
    disturbance, tokens = Disturbance(program, moment, fault), TOKENS
    if moment == "queued":
        for number in range(PLACES):
            await ask(program, input=f"Fill place {number}.", max_output_tokens=60)
    if moment == "before admission":
        await disturbance.strike_before()
    else:
        if fault == "stop" and moment in BEFORE_THE_END:
            tokens = ENDLESS
        elif fault == "engine kill" and moment in IN_ITS_MIDDLE:
            tokens = LONG
        disturbance.response_id = await ask(program, max_output_tokens=tokens)
    try:
        follower = await Follower(program.url, disturbance.response_id, disturbance.on_event).run()
        assert disturbance.at, "the moment did not come"
    finally:
        await disturbance.settle()
    if fault == "stop" and moment in BEFORE_THE_END:
        common = min(len(undisturbed[LONG]), len(follower.text))
        assert follower.end["status"] == "cancelled"
        assert undisturbed[LONG][:common] == follower.text[:common]
    elif fault == "stop" and moment != "before admission":
        assert undisturbed[TOKENS] == follower.text
    else:
        assert (follower.text, follower.end["status"]) == (undisturbed[tokens], "incomplete")
    if fault == "engine kill" and moment in IN_ITS_MIDDLE:
        assert 0 < follower.interrupted_at - disturbance.at < Settings().lease, "it was not released"
    assert follower.end["usage"]["output_tokens"] == follower.tokens
    late = await Follower(program.url, disturbance.response_id, lambda *_: None).run()
    assert (late.text, late.position, late.end) == (follower.text, follower.position, follower.end)


LONG_PAUSE = 10.0
"""Seconds: longer than any time-out of a single exchange with the store, and than a lease."""


async def test_a_store_that_stands_still_for_ten_seconds(program, undisturbed):
    """Answers at every moment at once, from one not yet asked for to one that has ended: all are whole afterwards.

    The store stands still as one is at its last token, one in its middle, and one has none.
    """
    ended = await ask(program)
    assert (await Follower(program.url, ended).run()).text == undisturbed[TOKENS]
    stopped: list[float] = []

    def stop_at_the_last_token(follower: Follower, _event: dict) -> None:
        if follower.tokens == TOKENS and not stopped and {0, TOKENS} < {one.tokens for one in followers}:
            program.kill("store", signal.SIGSTOP)
            stopped.append(time.monotonic())

    followers = []
    for _ in range(3 * PLACES):
        followers.append(Follower(program.url, await ask(program), stop_at_the_last_token))
        await asyncio.sleep(0.12)
    reading = asyncio.gather(*(follower.run() for follower in followers))
    async with asyncio.timeout(60):
        while not stopped:
            await asyncio.sleep(0.005)
    try:
        asking = asyncio.create_task(ask_again(program, secrets.token_hex(8)))
        await asyncio.sleep(stopped[0] + LONG_PAUSE - time.monotonic())
    finally:
        program.kill("store", signal.SIGCONT)
    followers += [Follower(program.url, one) for one in (ended, await asking)]
    await asyncio.gather(reading, *(follower.run() for follower in followers[-2:]))
    assert {follower.text for follower in followers} == {undisturbed[TOKENS]}
    assert {follower.end["usage"]["output_tokens"] for follower in followers} == {TOKENS}
    await asyncio.to_thread(program.wait_ready)
