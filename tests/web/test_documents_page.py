"""The documents' pages in a real browser: no network, strict policy, search, phone, dark, no script."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Page, expect
from starlette.applications import Starlette

from chatserver.transports import documents, static

PATHS = ("/docs", "/docs/events", "/docs/developers")


@pytest.fixture(scope="module")
def documents_url() -> Iterator[str]:
    app = Starlette(routes=documents.routes())
    app.router.redirect_slashes = False
    app.router.default = static.Page()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def page_url(documents_url: str) -> str:
    return f"{documents_url}/docs"


def test_search_shows_what_has_all_words(page: Page):
    """It filters operations and schemas, counts, hides empty groups; / leads to it."""
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    page.keyboard.type("fork conversation")
    expect(page.get_by_role("status")).to_contain_text(" of ")
    expect(page.locator("#post_v1_conversations_conversation_id_fork")).to_be_visible()
    expect(page.locator("#post_v1_responses")).to_be_hidden()
    expect(page.get_by_role("heading", name="Models")).to_be_hidden()
    page.get_by_role("searchbox").fill("")
    expect(page.locator("#post_v1_responses")).to_be_visible()


def test_links_open_what_they_name(page: Page, documents_url: str):
    """From an operation to its schema, and from outside."""
    page.locator("#post_v1_responses > summary").click()
    page.locator("#post_v1_responses").get_by_role("link", name="ResponseRequest").click()
    expect(
        page.locator("#schema-ResponseRequest li code", has_text="previous_response_id").first
    ).to_be_visible()
    page.goto(f"{documents_url}/docs/events#answer.response.created")
    expect(page.locator("[id='answer.response.created'] > ul")).to_be_visible()


def test_ids_are_unique(page: Page, documents_url: str):
    """Links lead to one place."""
    for path in PATHS:
        page.goto(documents_url + path)
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
        assert len(set(ids)) == len(ids) > 0


@pytest.mark.parametrize(
    "options",
    [{"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}, {"java_script_enabled": False}],
    ids=["phone, dark", "no script"],
)
def test_all_pages_fit_and_can_be_read(page: Page, documents_url: str, options):
    """Nothing is wider than the screen; headings go down level by level; the place is marked; dark is dark."""
    # levels are h1, h2, then h4 in what can be opened
    for path in PATHS:
        page.goto(documents_url + path)
        expect(page.locator("nav [aria-current=page]")).to_have_count(1)
        expect(page.locator("main h1")).to_have_count(1)
        if "viewport" not in options:
            expect(page.locator("#find")).to_be_hidden()
            expect(page.locator("main h2").first).to_be_visible()
            continue
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        levels = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4')].map((node) => +node.tagName[1])"
        )
        assert all(after - before <= 2 for before, after in itertools.pairwise(levels))
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(25, 24, 22)"
