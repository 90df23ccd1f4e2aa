"""What the page loads when it is needed."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.web.conftest import Watch

pytestmark = pytest.mark.browser


def test_what_could_not_be_loaded_is_loaded_when_it_is_needed_again(
    context: BrowserContext, page_url: str, watch: Watch
) -> None:
    """A server that was away for a moment must not cost a page its dialogs until it is loaded anew."""
    watch.expected = ["ERR_FAILED"]
    page, dialogs = context.new_page(), "**/later/dialogs.js"
    page.route(dialogs, lambda route: route.abort())
    page.goto(page_url)
    page.locator("#scroller").focus()
    with page.expect_request_finished(lambda request: request.url.endswith("later/rename.js")):
        page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.unroute(dialogs)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
