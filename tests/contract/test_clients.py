"""Clients that others wrote work unchanged: JavaScript's openai SDK, LangChain, Pydantic AI, httpx-sse, a browser.

Python's openai SDK is driven throughout the other tests.
"""

from __future__ import annotations

import json
import shutil

import httpx
import pytest
from httpx_sse import connect_sse

from tests.javascript import run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ALIAS = "deepseek-chat"


def test_the_javascript_sdk(program, javascript):
    """Chat, Responses, resuming, stopping, lists, the WebSocket, errors."""
    told = run("contract.mjs", program.url)
    assert told.split("\n")[:4] == ["chat: ok", "responses: ok", "socket: ok", "errors: ok"]


def test_langchain(program):
    """Whole, streamed with usage, in parallel; both of its dialects."""
    from langchain_openai import ChatOpenAI

    for more in ({}, {"use_responses_api": True}):
        model = ChatOpenAI(
            model=ALIAS, base_url=f"{program.url}/v1", api_key="unused", temperature=0, max_tokens=30, **more
        )
        answer = model.invoke([("system", "Be brief."), ("human", "Hello there")])
        streamed = None
        for chunk in model.stream([("system", "Be brief."), ("human", "Hello there")]):
            streamed = chunk if streamed is None else streamed + chunk
        assert answer.text == streamed.text and answer.text
        usage = answer.usage_metadata
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
        assert len(model.batch(["One", "Two", "Three"])) == 3


async def test_pydantic_ai(program):
    """A run, a streamed run, and a second turn with its history."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{program.url}/v1", api_key="unused")
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        agent = Agent(kind(ALIAS, provider=provider), system_prompt="Be brief.")
        settings = {"temperature": 0.0, "max_tokens": 30}
        first = await agent.run("Hello there", model_settings=settings)
        long = {
            **settings,
            "max_tokens": 600,
            "extra_body": {"ignore_eos": True},
        }  # too long to come in one piece
        async with agent.run_stream("Hello there", model_settings=long) as running:
            parts = [text async for text in running.stream_text(delta=True, debounce_by=None)]
        assert "".join(parts).startswith(first.output) and len(parts) > 1
        second = await agent.run("And?", message_history=first.all_messages(), model_settings=settings)
        assert second.usage.input_tokens > first.usage.input_tokens


def test_httpx_sse_reads_and_resumes(program):
    """Its parser finds ids and names; Last-Event-ID brings exactly the rest; 204 when there is no more."""
    body = {"input": "Hello there", "stream": True, "max_output_tokens": 40}
    with (
        httpx.Client(base_url=program.url, timeout=60) as client,
        connect_sse(client, "POST", "/v1/responses", json=body) as source,
    ):
        seen = [event for event, _ in zip(source.iter_sse(), range(12), strict=False)]
    name = json.loads(seen[0].data)["response"]["id"]
    with httpx.Client(base_url=program.url, timeout=60) as client:
        headers = {"Last-Event-ID": seen[-1].id}
        with connect_sse(client, "GET", f"/v1/responses/{name}?stream=true", headers=headers) as source:
            seen += list(source.iter_sse())
        stored = client.get(f"/v1/responses/{name}").json()
        gone = client.get(f"/v1/responses/{name}?stream=true", headers={"Last-Event-ID": seen[-1].id})
    deltas = [json.loads(event.data)["delta"] for event in seen if event.event.endswith("output_text.delta")]
    assert "".join(deltas) == stored["output"][0]["content"][0]["text"]
    assert all(json.loads(event.data)["sequence_number"] == int(event.id) for event in seen)
    assert gone.status_code == 204


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browsers_own_eventsource_and_websocket(program):
    """EventSource resumes by itself and stops at 204; WebSocket streams. In the page's origin, without a library."""
    from playwright.sync_api import sync_playwright

    begun = httpx.post(
        f"{program.url}/v1/responses",
        json={"input": "Hello there", "background": True, "max_output_tokens": 60},
        timeout=60,
    ).json()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"{program.url}/livez")
        told = page.evaluate(_EVENT_SOURCE, begun["id"])
        frames = page.evaluate(_WEB_SOCKET, program.url.replace("http", "ws") + "/v1/responses")
        browser.close()
    stored = httpx.get(f"{program.url}/v1/responses/{begun['id']}", timeout=60).json()
    assert told["text"] == stored["output"][0]["content"][0]["text"] and told["closed"] == 2
    assert told["ids"] == sorted(set(told["ids"]))
    assert frames[0] == "response.created" and frames[-1] == "response.incomplete"


_EVENT_SOURCE = """
id => new Promise(resolve => {
  const source = new EventSource(`/v1/responses/${id}?stream=true`);
  const told = {text: '', ids: []};
  const take = event => {
    told.ids.push(Number(event.lastEventId));
    const data = JSON.parse(event.data);
    if (data.type === 'response.output_text.delta') told.text += data.delta;
  };
  for (const name of ['created', 'queued', 'in_progress', 'output_item.added', 'output_text.delta', 'incomplete'])
    source.addEventListener(`response.${name}`, take);
  // the server closes behind the last event; the browser comes back by itself, and 204 ends that
  source.onerror = () => { if (source.readyState === 2) resolve({...told, closed: source.readyState}); };
})
"""
_WEB_SOCKET = """
url => new Promise((resolve, reject) => {
  const socket = new WebSocket(url), kinds = [];
  socket.onopen = () => socket.send(JSON.stringify({type: 'response.create', input: 'Hi', max_output_tokens: 20}));
  socket.onmessage = event => {
    kinds.push(JSON.parse(event.data).type);
    if (kinds.at(-1) === 'response.incomplete') { socket.close(); resolve(kinds); }
  };
  socket.onerror = () => reject(new Error('socket'));
})
"""


def test_no_client_has_ended_the_program(program):
    """What the clients did above was answered, and left no traceback in the log."""
    assert httpx.get(f"{program.url}/readyz", timeout=60).status_code == 200
    logs = [program.log, *(program.data_dir / "logs").glob("*.log")]
    assert not [log for log in logs if log.exists() and "Traceback" in log.read_text(errors="replace")]
