"""A real browser on the page, and the fake server behind it; a module may override `page_url` to drive another."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.web.fake_server import Fake

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
PATIENCE_MS = 20_000
"""As long as a busy machine needs."""


@dataclass
class Watch:
    """What the browser complained about and where it went."""

    origin: str
    complaints: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Patterns of console errors that the test provokes."""

    def watch(self, context: BrowserContext) -> None:
        """Listen to a context."""
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(f"uncaught: {error.error}"))
        context.on("request", lambda request: self._address(request.url))
        context.on("page", lambda page: page.on("websocket", lambda ws: self._address(ws.url)))

    def check(self) -> None:
        """Fail if there was anything unexpected."""
        unexpected = [it for it in self.complaints if not any(re.search(p, it) for p in self.expected)]
        assert not unexpected, f"the browser complained: {unexpected}"
        assert not self.strays, f"requests left the origin: {self.strays}"

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _address(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.origin).netloc and not url.startswith("data:"):
            self.strays.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, once a module: while Playwright's loop stands in this thread, no other test can run one."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: install Debian's package `chromium` to run the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A fresh fake server; its address is `fake.url`."""
    fake = Fake()
    listener = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(fake.app(), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the fake server did not start"
        time.sleep(0.01)
    yield fake
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def page_url(fake: Fake) -> str:
    """Where the page is."""
    return fake.url


@pytest.fixture
def watch(page_url: str) -> Watch:
    """What the browser says during the test."""
    return Watch(page_url)


@pytest.fixture
def options() -> dict[str, Any]:
    """Options of the browser context; override with a parametrisation."""
    return {}


@pytest.fixture
def context(browser: Browser, watch: Watch, options: dict[str, Any]) -> Iterator[BrowserContext]:
    """A fresh profile that fails the test on any complaint or stray request."""
    settings: dict[str, Any] = {"locale": "en-GB", "viewport": {"width": 1200, "height": 800}} | options
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE_MS)
    watch.watch(context)
    yield context
    context.close()
    watch.check()


@pytest.fixture
def page(context: BrowserContext, page_url: str) -> Page:
    """The page, loaded."""
    page = context.new_page()
    page.goto(page_url)
    return page
