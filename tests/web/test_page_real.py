"""The page on the whole program with the scripted engine: the same promises, without a fake in between."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.program import Program
from tests.web.conftest import PATIENCE_MS, Watch
from tests.web.steps import answers, ask, phase

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
SPEED = {"SCRIPTED_TOKENS_PER_SECOND": "60", "SCRIPTED_TTFT_MS": "20"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, once."""
    with Program(tmp_path_factory.mktemp("page") / "data", model="scripted", **SPEED) as program:
        program.wait_ready(60)
        yield program


@pytest.fixture
def page_url(program: Program) -> str:
    """Drive the program."""
    return program.url


def stored_text(page: Page, program: Program) -> str:
    """The newest answer of the open conversation, as the server keeps it."""
    conversation = page.url.rsplit("/", 1)[1]
    items = httpx.get(f"{program.url}/v1/conversations/{conversation}/items", params={"limit": 1}).json()[
        "data"
    ]
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
    ask(page, "Write a long story")
    phase(page, "answering")
    page.wait_for_timeout(300)
    page.keyboard.press("Escape")
    phase(page, "stopped")
    assert plain(shown_text(page)) == plain(stored_text(page, program)) != ""
    ask(page, "Go on")
    phase(page, "completed")


def test_reload_in_mid_answer(page: Page, program: Program) -> None:
    """A reload shows every word once."""
    ask(page, "Write another long story")
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
        program.wait_ready(60)
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
