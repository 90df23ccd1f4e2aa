"""Several webs and engines on one store, with nothing in common but its address."""

from __future__ import annotations

import asyncio
import random
import time

import httpx
import pytest

from tests.e2e.following import Follower
from tests.fleet import Fleet
from tests.stores import running_store

pytestmark = pytest.mark.e2e

ANSWERS = 24
PLACES = 4
"""So few that both engines have to take their half of the answers."""
TOKENS = 400
SOON = 2.0
"""Seconds within which readers are told that their engine is gone."""
ASK = {
    "model": "scripted",
    "temperature": 0,
    "max_output_tokens": TOKENS,
    "ignore_eos": True,
    "background": True,
}


@pytest.fixture
def fleet(tmp_path_factory):
    """Processes that have half a second to finish what they do, which is less than any answer takes."""
    settings = {
        "SCRIPTED_TOKENS_PER_SECOND": "80",
        "CHATSERVER_DRAIN": "0.5",
        "CHATSERVER_LOG_LEVEL": "warning",
    }
    with running_store() as store, Fleet(tmp_path_factory.mktemp("fleet"), store.url, **settings) as made:
        yield made


async def begun(urls: list[str], texts: list[str]) -> list[str]:
    """Ask at once, at each server in turn; return the answers' ids."""
    async with httpx.AsyncClient(timeout=60) as client:
        asked = (
            client.post(f"{urls[n % len(urls)]}/v1/responses", json={**ASK, "input": text})
            for n, text in enumerate(texts)
        )
        answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * len(texts), answers[0].text
    return [answer.json()["id"] for answer in answers]


async def under_way(followers: list[Follower]) -> None:
    """Wait until half of them have a token. Most answers have seconds to go then, however late this is seen."""
    async with asyncio.timeout(60):
        while sum(follower.tokens > 0 for follower in followers) < len(followers) // 2:
            await asyncio.sleep(0.01)


async def whole(url: str, text: str) -> str:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{url}/v1/responses", json={**ASK, "input": text, "background": False})
    return answer.json()["output"][0]["content"][0]["text"]


async def test_a_rolling_restart_under_load_loses_no_token(fleet):
    """Each web and each engine is replaced while 24 answers run: every reader has the undisturbed text, once."""
    webs = [fleet.start("web") for _ in range(2)]
    engines = [fleet.start("engine") for _ in range(2)]
    for web in webs:
        await asyncio.to_thread(fleet.wait_ready, web, 2)
    texts = [f"Question {n % 3}" for n in range(ANSWERS)]
    expected = dict(
        zip(texts[:3], await asyncio.gather(*(whole(webs[0].url, t) for t in texts[:3])), strict=True)
    )
    followers: list[Follower] = []
    for n in range(2):
        old_web, old_engine, new_web, new_engine = (
            webs[n],
            engines[n],
            fleet.start("web"),
            fleet.start("engine"),
        )
        await asyncio.to_thread(fleet.wait_ready, new_web, 3)
        ids = await begun([web.url for web in webs], texts)
        readers = [Follower(lambda: random.choice(webs).url, one) for one in ids]
        reading = [asyncio.create_task(reader.run()) for reader in readers]
        await under_way(readers)
        webs[n], engines[n] = new_web, new_engine
        codes = await asyncio.gather(*(asyncio.to_thread(old.end) for old in (old_engine, old_web)))
        assert codes == [0, 0], old_web.log.read_text() + old_engine.log.read_text()
        followers += await asyncio.gather(*reading)
    assert [follower.text for follower in followers] == [expected[text] for text in texts * 2]
    assert {follower.end["status"] for follower in followers} == {"incomplete"}
    assert {follower.end["usage"]["output_tokens"] for follower in followers} == {TOKENS}
    assert sum(follower.interrupted_at > 0 for follower in followers) > 0, "nothing was handed over"
    assert sum(follower.connections > 1 for follower in followers) > 0, "nobody had to come back"


async def test_a_killed_engine_is_taken_over_by_another_one(fleet):
    """No supervisor sees it die: a web process does, readers are told, and the other engine goes on."""
    web = fleet.start("web")
    first, second = (fleet.start("engine", CHATSERVER_MAX_RUNNING=str(PLACES)) for _ in range(2))
    await asyncio.to_thread(fleet.wait_ready, web, 2)
    expected = await whole(web.url, "Tell me about tides.")
    ids = await begun([web.url], ["Tell me about tides."] * (2 * PLACES))
    readers = [Follower(web.url, one) for one in ids]
    reading = [asyncio.create_task(reader.run()) for reader in readers]
    await under_way(readers)
    killed_at = time.monotonic()
    first.kill()
    followers = await asyncio.gather(*reading)
    assert {follower.text for follower in followers} == {expected}
    told = [follower.interrupted_at - killed_at for follower in followers if follower.interrupted_at]
    assert told and all(0 < after < SOON for after in told), told
    assert second.process.poll() is None
