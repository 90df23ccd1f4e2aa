"""What a user does and sees on the page."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)


def composer(page: Page) -> Locator:
    """The message field."""
    return page.get_by_role("textbox", name="Message")


def ask(page: Page, text: str) -> None:
    """Send a message, as a user would."""
    expect(page.locator("#model-name")).not_to_be_empty()
    composer(page).fill(text)
    composer(page).press("Enter")


def answers(page: Page) -> Locator:
    """The bodies of the answers."""
    return page.locator(".answer .markdown")


def act(page: Page, name: str, kind: str = "answer") -> None:
    """Go to the tab (one behind another is drawn once a second), press a button of the newest answer or question."""
    page.bring_to_front()
    message = page.locator(f".{kind}").last
    message.hover()
    message.get_by_role("button", name=name, exact=True).click()


def phase(page: Page, name: str) -> None:
    """Wait until the newest answer is in a phase."""
    expect(page.locator(".answer").last).to_have_attribute("data-phase", name)


def words(count: int) -> str:
    """What the fake server answers, without the echo."""
    return " ".join(f"word{index}" for index in range(count))
