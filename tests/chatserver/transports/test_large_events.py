"""The event that closes a very long answer carries its whole text: what clients with default limits do with it."""

from __future__ import annotations

import asyncio
import json

import httpx
import httpx_sse
import pytest
from playwright.async_api import Page, async_playwright, expect
from websockets.exceptions import ConnectionClosedError

from tests.chatserver.transports.test_websocket import send, socket_to
from tests.javascript import run
from tests.web.conftest import CHROMIUM, FLAGS, PATIENCE_MS, Watch

PIECE = "word " * 6000
TEXT = PIECE * 40
"""1.2 million characters: more than any window of a served model gives, and than `websockets` takes by default."""


@pytest.fixture
def long_answer(memory):
    memory.engine.answer = [PIECE] * 40
    return memory


async def test_the_sdk_over_websocket(long_answer):
    async with long_answer.sdk().responses.connect() as connection:
        await connection.response.create(model="tiny", input="Hello")
        async for event in connection:
            if event.type == "response.completed":
                break
    assert event.response.output_text == TEXT


async def test_the_sdk_and_httpx_sse_over_sse(long_answer):
    stream = await long_answer.sdk().responses.create(model="tiny", input="Hello", stream=True)
    events = [event async for event in stream]
    assert events[-1].response.output_text == TEXT
    path = f"{long_answer.url}/v1/responses/{events[-1].response.id}"
    async with (
        httpx.AsyncClient(timeout=60) as http,
        httpx_sse.aconnect_sse(http, "GET", path, params={"stream": "true"}) as source,
    ):
        found = [json.loads(event.data) async for event in source.aiter_sse()]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == TEXT


async def test_a_client_with_a_bound_of_its_own_is_told_by_itself(long_answer):
    """`websockets` closes such a connection with 1009; with `max_size=None` it reads the answer, as the guide says."""
    for most, closed in ((2**20, True), (None, False)):  # the first is its default
        async with socket_to(long_answer, max_size=most) as socket:
            await send(socket, type="response.create", model="tiny", input="Hello")
            event: dict = {}
            try:
                while event.get("type") != "response.completed":
                    event = json.loads(await socket.recv())
            except ConnectionClosedError as error:
                assert closed and error.sent is not None and error.sent.code == 1009
            else:
                assert not closed


async def test_the_sdk_for_javascript(long_answer, javascript):
    """It sets no bound, over SSE or WebSocket."""
    told = await asyncio.to_thread(run, "large.mjs", long_answer.url, str(len(TEXT)), timeout=60)
    assert told.split() == ["sse:", "ok", "socket:", "ok"]


CLOSING = {
    "EventSource": """id => new Promise((resolve, reject) => {
        const source = new EventSource(`/v1/responses/${id}?stream=true`);
        source.onerror = () => reject(new Error('broken off'));
        source.addEventListener('response.completed', event => { source.close(); resolve(event.data); });
    })""",
    "WebSocket": """id => new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://${location.host}/v1/responses`);
        socket.onopen = () => socket.send(JSON.stringify({ type: 'response.attach', response_id: id }));
        socket.onclose = () => reject(new Error('broken off'));
        socket.onmessage = ({ data }) => data.includes('"response.completed"') && resolve(data);
    })""",
}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
async def test_a_browser(long_answer):
    """The page shows all of it, while it comes and after a reload; so do EventSource and WebSocket bring it."""
    watch = Watch(long_answer.url)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        watch.watch(context)
        page = await context.new_page()
        await page.goto(long_answer.url)
        await expect(page.locator("#model-name")).not_to_be_empty()
        await page.get_by_role("textbox", name="Message").fill("Hello")
        await page.keyboard.press("Enter")
        await shows_all(page)
        await page.reload()
        await shows_all(page)
        (response_id,) = long_answer.engine.started
        for door in CLOSING.values():
            event = json.loads(await page.evaluate(door, response_id))
            assert event["response"]["output"][0]["content"][0]["text"] == TEXT
        await browser.close()
    watch.check()


async def shows_all(page: Page) -> None:
    """Wait for the end; compare every word."""
    answer = page.locator(".answer")
    await expect(answer).to_have_attribute("data-phase", "completed", timeout=PATIENCE_MS)
    assert (await answer.locator(".markdown").text_content() or "").split() == TEXT.split()
