"""Writing on the page: input methods, keys, languages, and what a screen reader hears."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.fake_server import Fake
from tests.web.steps import ask, composer, phase

pytestmark = pytest.mark.browser


def compose(page: Page, text: str) -> None:
    """Have an input method compose `text`, unfinished."""
    session = page.context.new_cdp_session(page)
    session.send(
        "Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)}
    )


def commit_with_enter(page: Page, text: str) -> None:
    """Press the Enter that an input method takes, which ends the composition."""
    session = page.context.new_cdp_session(page)
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    session.send("Input.insertText", {"text": text})
    session.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})


def test_enter_ends_a_hangul_syllable_and_sends_once(page: Page, fake: Fake) -> None:
    """Enter while Hangul is composed sends the whole word, once."""
    expect(page.locator("#model-name")).not_to_be_empty()
    composer(page).focus()
    page.keyboard.insert_text("안녕하세")
    compose(page, "요")
    commit_with_enter(page, "요")
    expect(page.locator(".question .bubble")).to_have_text("안녕하세요")
    phase(page, "completed")
    expect(page.locator(".question")).to_have_count(1)
    expect(composer(page)).to_have_value("")


def test_enter_confirms_a_candidate_and_does_not_send(page: Page, fake: Fake) -> None:
    """For Japanese, Chinese and Vietnamese, Enter in a composition is the input method's; the next one sends."""
    expect(page.locator("#model-name")).not_to_be_empty()
    composer(page).focus()
    compose(page, "にほn")
    commit_with_enter(page, "日本")
    page.wait_for_timeout(150)
    expect(page.locator(".question")).to_have_count(0)
    expect(composer(page)).to_have_value("日本")
    composer(page).press("Enter")
    expect(page.locator(".question .bubble")).to_have_text("日本")


def test_shift_enter_breaks_the_line(page: Page, fake: Fake) -> None:
    """Shift + Enter is a new line, and the field grows."""
    expect(page.locator("#model-name")).not_to_be_empty()
    before = composer(page).bounding_box()
    composer(page).press_sequentially("one")
    composer(page).press("Shift+Enter")
    composer(page).press_sequentially("two")
    expect(composer(page)).to_have_value("one\ntwo")
    after = composer(page).bounding_box()
    assert before and after and after["height"] > before["height"]


@pytest.mark.parametrize("options", [{"locale": "ko-KR"}, {"locale": "vi-VN"}], ids=["ko", "vi"])
def test_speaks_the_browsers_language(page: Page, fake: Fake, options: dict[str, Any]) -> None:
    """Korean and Vietnamese browsers get their own words, and `lang` says so."""
    lang = str(options["locale"])[:2]
    expect(page.locator("html")).to_have_attribute("lang", lang)
    expect(page.locator("#message")).to_have_attribute(
        "placeholder", {"ko": "메시지를 입력하세요", "vi": "Nhập tin nhắn"}[lang]
    )
    page.locator("#language").select_option("en")
    expect(page.locator("#message")).to_have_attribute("placeholder", "Write a message")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_is_quiet_while_streaming(page: Page, fake: Fake) -> None:
    """The log is not live; a separate polite region says what happens."""
    ask(page, "words=5")
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")
    expect(page.locator("#announcer")).to_have_text("Answer complete")


def test_keyboard(page: Page, fake: Fake) -> None:
    """`?` shows the shortcuts outside the field, Esc closes them, Alt + N begins anew."""
    composer(page).fill("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#scroller").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    composer(page).fill("words=2")
    composer(page).press("Enter")
    phase(page, "completed")
    page.keyboard.press("Alt+n")
    expect(page.locator(".answer")).to_have_count(0)
    expect(composer(page)).to_be_focused()
