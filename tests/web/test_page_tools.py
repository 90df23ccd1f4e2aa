"""Tool calls on the page and the whole program behind it: an app holds a conversation by the API, somebody reads it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.program import Program
from tests.web.conftest import ARTEFACTS
from tests.web.steps import act, answers, ask, phase

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
WILD = '<img src=x onerror="alert(1)"> **not bold** ' + "x" * 5_000
"""What a tool gave: longer than what is shown at first, and nothing of it is more than text."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, once: slow enough to see a call being written."""
    speed = {"SCRIPTED_TOKENS_PER_SECOND": "50", "SCRIPTED_TTFT_MS": "20"}
    with Program(tmp_path_factory.mktemp("tools") / "data", model="scripted", **speed) as program:
        program.wait_ready()
        yield program


@pytest.fixture
def page_url(program: Program) -> str:
    """Drive the program."""
    return program.url


def respond(program: Program, conversation: str, given: Any) -> dict[str, Any]:
    """What an app would send; the answer."""
    body = {"model": "scripted", "conversation": conversation, "input": given, "tools": [WEATHER]}
    answer = httpx.post(f"{program.url}/v1/responses", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def fold(page: Page, title: str) -> Locator:
    """The folded part of this title."""
    return page.locator("details.folded").filter(has=page.locator("summary", has_text=title))


def test_calls_and_what_they_gave(page: Page, program: Program) -> None:
    """A call is shown as it is written, what it gave is plain text, it can be answered anew, and a reload keeps all."""
    conversation = httpx.post(f"{program.url}/v1/conversations", json={}, timeout=60).json()["id"]
    background = {"model": "scripted", "conversation": conversation, "tools": [WEATHER], "background": True}
    page.goto(f"{program.url}/#/c/{conversation}")
    expect(page.locator("#empty")).to_be_visible()
    asked = {**background, "input": "Please get_weather of Hanoi"}
    begun = httpx.post(f"{program.url}/v1/responses", json=asked, timeout=60).json()
    with httpx.stream("GET", f"{program.url}/v1/responses/{begun['id']}?stream=true", timeout=60) as events:
        assert any("function_call_arguments.delta" in line for line in events.iter_lines())
        program.kill("engine", signal.SIGSTOP)  # there is as much time to see it as a busy machine needs
    expect(fold(page, "Calling get_weather…")).to_be_visible()
    program.kill("engine", signal.SIGCONT)
    phase(page, "completed")
    called = fold(page, "Called get_weather")
    called.locator("summary").click()
    (call,) = httpx.get(f"{program.url}/v1/responses/{begun['id']}", timeout=60).json()["output"]
    assert json.loads(called.locator("code").inner_text()) == json.loads(call["arguments"])
    given = {"type": "function_call_output", "call_id": call["call_id"], "output": WILD}
    respond(program, conversation, [given])
    expect(answers(page)).to_have_count(2)
    expect(answers(page).last).not_to_be_empty()
    phase(page, "completed")
    output = fold(page, "Output of get_weather")
    output.locator("summary").click()
    text = output.locator("code")
    assert text.inner_text() == WILD[:4_000]
    expect(output.locator("img, strong")).to_have_count(0)
    page.screenshot(path=ARTEFACTS / "tools.png")
    output.get_by_role("button", name=f"Show all {len(WILD):,} characters").click()
    assert text.inner_text() == WILD
    act(page, "Answer again")
    expect(page.locator(".answer .count").last).to_have_text("2 / 2")
    phase(page, "completed")
    page.reload()
    expect(fold(page, "Called get_weather")).to_be_visible()
    expect(fold(page, "Output of get_weather")).to_be_visible()
    expect(page.locator(".answer .count").last).to_have_text("2 / 2")
    ask(page, "Thank you")
    phase(page, "completed")
    expect(answers(page)).to_have_count(3)


def test_all_of_it_is_copied(page: Page, program: Program) -> None:
    """Also what is not shown."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    given = [
        {"role": "system", "content": "Look before you speak."},
        {"role": "user", "content": "What is there?"},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "look",
            "arguments": '{"where":["here",{"or":"there"}]}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": WILD},
    ]
    conversation = httpx.post(f"{program.url}/v1/conversations", json={"items": given}, timeout=60).json()[
        "id"
    ]
    page.goto(f"{program.url}/#/c/{conversation}")
    for title, text in (
        ("Called look", '{\n  "where": [\n    "here",\n    {\n      "or": "there"\n    }\n  ]\n}'),
        ("Output of look", WILD),
        ("Instructions", "Look before you speak."),
    ):
        fold(page, title).locator("summary").click()
        fold(page, title).get_by_role("button", name="Copy").click()
        expect(page.locator("[data-copied]")).to_have_count(1)
        assert page.evaluate("navigator.clipboard.readText()") == text
        expect(page.locator("[data-copied]")).to_have_count(0)
