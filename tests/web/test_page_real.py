"""The page on the whole program with the scripted engine: the same promises, without a fake in between."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.program import Program
from tests.web.conftest import PATIENCE_MS, Watch
from tests.web.steps import act, answers, ask, phase

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
SPEED = {"SCRIPTED_TOKENS_PER_SECOND": "60", "SCRIPTED_TTFT_MS": "20"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, once."""
    with Program(tmp_path_factory.mktemp("page") / "data", model="scripted", **SPEED) as program:
        program.wait_ready()
        yield program


@pytest.fixture
def page_url(program: Program) -> str:
    """Drive the program."""
    return program.url


ENDLESS = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) {
  const frame = JSON.parse(text);
  const whale = JSON.stringify(frame.input ?? "").includes("whale");
  send.call(this, whale ? JSON.stringify({ ...frame, ignore_eos: true, max_output_tokens: 7000 }) : text);
};
"""
"""So that only what stops it ends the answer to a question about the whale."""


def stored_text(page: Page, program: Program) -> str:
    """The newest answer of the open conversation, as the server keeps it."""
    conversation = page.url.split("#/c/")[1].split("/")[0]
    url = f"{program.url}/v1/conversations/{conversation}/items"
    items = httpx.get(url, params={"limit": 1}, timeout=60).json()["data"]
    assert items[0]["role"] == "assistant"
    return items[0]["content"][0]["text"]


def shown_text(page: Page) -> str:
    """The newest answer as the page would copy it."""
    return answers(page).last.inner_text()


def plain(text: str) -> str:
    """Text without what Markdown may eat or wrap."""
    return "".join(letter for letter in text if letter.isalnum())


def test_two_turns(page: Page, program: Program) -> None:
    """Both questions are answered in full, and the second one's figures tell of cached tokens."""
    ask(page, "Hello there")
    phase(page, "completed")
    assert plain(shown_text(page)) == plain(stored_text(page, program))
    ask(page, "And again")
    expect(page.locator(".question")).to_have_count(2)
    phase(page, "completed")
    cached = page.locator("[data-figure=cached]").last.inner_text()
    assert not cached.startswith("0 "), cached
    expect(page.locator("#conversations a").first).to_have_text("Hello there")


def test_stop_keeps_what_was_written(page: Page, program: Program) -> None:
    """Esc stops the engine; page and server keep the same text, and the next turn works."""
    page.add_init_script(ENDLESS)
    page.reload()
    ask(page, "Tell me all about the whale")
    phase(page, "answering")
    page.wait_for_timeout(300)
    page.keyboard.press("Escape")
    phase(page, "stopped")
    assert plain(shown_text(page)) == plain(stored_text(page, program)) != ""
    ask(page, "Go on")
    phase(page, "completed")


def test_reload_in_mid_answer(page: Page, program: Program) -> None:
    """A reload shows every word once."""
    ask(page, "Tell me all about the bird")  # 186 tokens
    phase(page, "answering")
    page.wait_for_timeout(300)
    page.reload()
    expect(page.locator(".question")).to_have_count(1)
    phase(page, "completed")
    expect(page.locator(".answer")).to_have_count(1)
    assert plain(shown_text(page)) == plain(stored_text(page, program))


def test_reopening_shows_the_figures(page: Page, program: Program) -> None:
    """A finished conversation that is opened later has its texts and its figures."""
    ask(page, "Something short")
    phase(page, "completed")
    expected = shown_text(page)
    page.reload()
    phase(page, "completed")
    assert shown_text(page) == expected
    expect(page.locator("[data-figure=ttft]")).to_be_visible()


def test_renames_and_deletes(page: Page, program: Program) -> None:
    """The list's actions reach the server."""
    ask(page, "To be renamed")
    phase(page, "completed")
    page.get_by_role("button", name="Rename “To be renamed”").click()
    page.get_by_role("textbox", name="New name").fill("Đã đổi tên")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Đã đổi tên")
    page.reload()
    expect(page.locator("#title")).to_have_text("Đã đổi tên")
    page.get_by_role("button", name="Delete “Đã đổi tên”").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("link", name="Đã đổi tên")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("link", name="Đã đổi tên")).to_have_count(0)


def test_asks_for_a_key(tmp_path_factory: pytest.TempPathFactory, browser: Browser, watch: Watch) -> None:
    """With keys configured the page signs in, over HTTP and on the socket."""
    keys = {"CHATSERVER_API_KEYS": "team:sk-test-0123456789abcdef"}
    with Program(tmp_path_factory.mktemp("keys") / "data", model="scripted", **SPEED, **keys) as program:
        program.wait_ready()
        watch.origin = program.url
        watch.expected.append("401")
        context = browser.new_context(locale="en-GB")
        context.set_default_timeout(PATIENCE_MS)
        watch.watch(context)
        page = context.new_page()
        page.goto(program.url)
        dialog = page.get_by_role("dialog", name="Sign in")
        dialog.get_by_label("API key").fill("sk-wrong")
        dialog.get_by_role("button", name="Sign in").click()
        expect(dialog).to_contain_text("does not accept")
        dialog.get_by_label("API key").fill("sk-test-0123456789abcdef")
        dialog.get_by_role("button", name="Sign in").click()
        ask(page, "Hello")
        phase(page, "completed")
        context.close()
        watch.check()


def stopped_in_time(page: Page) -> bool:
    """Stop the newest answer; say whether it was still written: the scripted engine may say one sentence only."""
    newest = page.locator(".answer").last
    expect(newest).to_have_attribute("data-phase", re.compile("answering|completed"))
    page.keyboard.press("Escape")
    expect(newest).to_have_attribute("data-phase", re.compile("stopped|completed"))
    return newest.get_attribute("data-phase") == "stopped"


def test_branches(page: Page, context: BrowserContext, program: Program) -> None:
    """Answered anew, edited, stopped and gone on with, deleted and copied, in step with a second tab."""
    ask(page, "Tell me of the tides")
    phase(page, "completed")
    first = shown_text(page)
    other = context.new_page()
    other.goto(page.url)
    phase(other, "completed")
    act(page, "Answer again")
    expect(other.locator(".answer .count")).to_have_text("1 / 2")
    expect(page.locator(".answer .count")).to_have_text("2 / 2")
    phase(page, "completed")
    assert plain(shown_text(other)) == plain(first)

    ask(page, "And a long story of the moon")
    expect(page.locator(".answer")).to_have_count(2)
    versions = 2  # the stopped one and the one that goes on with it
    while not stopped_in_time(page):
        key = page.locator(".answer").last.get_attribute("data-key")
        act(page, "Answer again")
        expect(page.locator(".answer").last).not_to_have_attribute("data-key", key)
        versions += 1
        assert versions < 8
    written = plain(shown_text(page))
    act(page, "Continue")
    phase(page, "completed")
    assert plain(shown_text(page)).startswith(written)
    assert plain(shown_text(page)) == plain(stored_text(page, program))
    page.reload()
    expect(page.locator(".answer")).to_have_count(2)
    expect(page.locator(".count").last).to_have_text(f"{versions} / {versions}")
    act(page, "Edit", "question")
    page.get_by_role("textbox", name="Edit").fill("And of the sun")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble").last).to_have_text("And of the sun")
    expect(page.locator(".question .count").last).to_have_text("2 / 2")
    phase(page, "completed")
    act(page, "Go on from here in a new conversation")
    expect(page.locator("#notice")).to_contain_text("This is a copy")
    expect(page.locator(".bubble").last).to_have_text("And of the sun")
    act(page, "Delete message", "question")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".question")).to_have_count(1)
    expect(page.locator("#conversations li").nth(1)).to_be_visible()


def test_figures_unfold(page: Page) -> None:
    """The account has what the model saw of the window."""
    ask(page, "Something with an account")
    phase(page, "completed")
    page.locator(".details summary").click()
    expect(page.locator(".details dl")).to_contain_text("Context window")
    expect(page.locator(".details meter")).to_be_visible()
