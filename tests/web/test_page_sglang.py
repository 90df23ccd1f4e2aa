"""The page on the real engine: versions, a reload in mid-answer, a stop, going on, an edit, and a second tab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.program import Program
from tests.web.conftest import ARTEFACTS, PATIENCE_MS
from tests.web.steps import act, answers, ask, phase
from tests.web.test_page_looks import PHONE
from tests.web.test_page_real import shown_text, stored_text

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.sglang]
SHORT = "What is the capital of France? Answer in one sentence."
LONG = "Tell a very long story about the keeper of a lighthouse."
FORCED = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) {
  const frame = JSON.parse(text);
  if (frame.type !== 'response.create' || frame.continue) return send.call(this, text);
  const long = JSON.stringify(frame.input).includes(LONG);
  const again = frame.input.length === 0 && { stop: [' Paris'] };
  send.call(this, JSON.stringify({ ...frame, temperature: 0, ...again, ...(long && { ignore_eos: true }) }));
};
""".replace("LONG", json.dumps(LONG))
"""So that nothing hangs on what the small model draws: only a stop ends its story, and a second answer differs."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program with SGLang and the small model, once."""
    folder = tmp_path_factory.mktemp("page") / "data"
    with Program(folder, model="smollm2-135m-instruct") as program:
        program.wait_ready()
        yield program


@pytest.fixture
def page_url(program: Program) -> str:
    """Drive the program."""
    return program.url


def plain(text: str) -> str:
    """Letters only: Markdown eats signs and, in lists, numbers."""
    return "".join(letter for letter in text if letter.isalpha())


def grown(page: Page, beyond: int = 0) -> str:
    """Wait until the newest answer is longer; return it."""
    page.wait_for_function(
        "more => [...document.querySelectorAll('.answer .markdown')].at(-1)"
        "?.innerText.replace(/\\P{L}/gu, '').length > more + 20",
        arg=beyond,
    )
    return plain(shown_text(page))


def count(page: Page, kind: str = "answer") -> Locator:
    """The newest ‹ n / m › of a kind."""
    return page.locator(f".{kind} .family:visible .count").last


def pictures(browser: Browser, url: str) -> None:
    """Keep the conversation as a light, a dark and a small screen show it."""
    for name, options in {
        "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
        "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
        "phone": PHONE,
    }.items():
        context = browser.new_context(locale="en-GB", **options)
        page = context.new_page()
        page.goto(url)
        expect(page.locator(".answer").last).to_have_attribute("data-phase", re.compile("stopped|completed"))
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"sglang-{name}.png")
        context.close()


def test_a_walk_through_one_conversation(
    page: Page, context: BrowserContext, browser: Browser, program: Program
) -> None:
    """Whatever is done, page, second tab and store tell the same words, each of them once."""
    page.set_default_timeout(2 * PATIENCE_MS)
    context.add_init_script(FORCED)
    page.reload()
    ask(page, SHORT)
    phase(page, "completed")
    first = shown_text(page)
    assert plain(first) == plain(stored_text(page, program)) != ""
    act(page, "Answer again")
    expect(count(page)).to_have_text("2 / 2")
    phase(page, "completed")
    assert plain(shown_text(page)) == plain(stored_text(page, program))
    page.get_by_role("button", name="Earlier version").click()
    expect(count(page)).to_have_text("1 / 2")
    assert shown_text(page) == first

    ask(page, LONG)
    expect(page.locator(".answer")).to_have_count(2)
    phase(page, "answering")
    before = grown(page)
    other = context.new_page()
    other.goto(page.url)
    page.reload()
    expect(page.locator(".answer")).to_have_count(2)
    expect(count(page)).to_have_text("1 / 2")  # the branch that was chosen, in mid-answer, too
    after = grown(page, len(before))
    assert after.startswith(before)
    page.keyboard.press("Escape")
    phase(page, "stopped")
    phase(other, "stopped")
    written = plain(shown_text(page))
    assert written.startswith(after) and written == plain(stored_text(page, program))
    assert plain(shown_text(other)) == written

    act(page, "Continue")
    phase(page, "answering")
    assert grown(page, len(written)).startswith(written)
    page.keyboard.press("Escape")
    phase(page, "stopped")
    assert plain(shown_text(page)) == plain(stored_text(page, program))
    assert plain(shown_text(page)).startswith(written)
    expect(count(page)).to_have_text("2 / 2")

    act(page, "Edit", "question")
    page.get_by_role("textbox", name="Edit").fill("Name one famous building there.")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble").last).to_have_text("Name one famous building there.")
    expect(count(page, "question")).to_have_text("2 / 2")
    expect(answers(page).last).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator(".answer").last).to_have_attribute("data-phase", re.compile("stopped|completed"))
    expect(count(other, "question")).to_have_text(
        "1 / 2"
    )  # the other tab stays where it was, and hears of it
    assert plain(shown_text(other)).startswith(written)
    expect(answers(page)).to_have_count(2)
    pictures(browser, page.url)
