"""The page in a real browser: chats, streams, stops, resumes, lists; under the server's own content policy."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.web.conftest import ARTEFACTS, PATIENCE_MS, Watch
from tests.web.fake_server import Fake

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

SAMPLE = """## Prefix reuse

A cut keeps the **cached prefix**, because the ids *before* it stay the same:

1. Keep the pinned head.
2. Drop whole turns, oldest first.
   - a question goes with its answer
   - never half of a pair
3. Warm the new prefix in idle time.

| policy | cached | TTFT |
|:--|--:|--:|
| `auto` | 98 % | 312 ms |
| `disabled` | 0 % | 4.1 s |

```python
def hits(prompt: int, cached: int) -> float:
    return cached / prompt if prompt else 0.0
```

> Nothing is loaded from elsewhere: ![a picture](https://example.org/p.png), <b>raw HTML</b> stays text.
"""


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


def phase(page: Page, name: str) -> None:
    """Wait until the newest answer is in a phase."""
    expect(page.locator(".answer").last).to_have_attribute("data-phase", name)


def words(count: int) -> str:
    """What the fake server answers, without the echo."""
    return " ".join(f"word{index}" for index in range(count))


def test_chats(page: Page) -> None:
    """A question is answered, listed, and told in figures; the focus stays in the message field."""
    ask(page, "Hello there")
    expect(page.locator(".question .bubble")).to_have_text("Hello there")
    phase(page, "completed")
    expect(answers(page)).not_to_be_empty()
    figures = page.locator(".figures")
    for name in ("ttft", "speed", "prompt", "cached"):
        expect(figures.locator(f"[data-figure={name}]")).to_be_visible()
    expect(page.locator("#conversations a")).to_have_text("Hello there")
    expect(composer(page)).to_be_focused()
    expect(composer(page)).to_have_value("")


def test_streams(page: Page, fake: Fake) -> None:
    """Text is there long before the answer is complete, and every word is there once in the end."""
    ask(page, "words=60 gap=0.03")
    expect(answers(page)).to_contain_text("word5")
    expect(answers(page)).not_to_contain_text("word59")
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(60))


@pytest.mark.parametrize("how", ["escape", "button"])
def test_stops(page: Page, fake: Fake, how: str) -> None:
    """Esc or the button stops; what was written stays, and the next question works."""
    ask(page, "words=2000 gap=0.02")
    expect(answers(page)).to_contain_text("word3")
    if how == "escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop").click()
    phase(page, "stopped")
    expect(answers(page)).to_contain_text("word3")
    expect(page.locator(".answer .state")).to_have_text("Stopped")
    expect(composer(page)).to_be_focused()
    ask(page, "words=3")
    phase(page, "completed")


def test_stops_while_queued(page: Page, fake: Fake) -> None:
    """An answer that has not begun can be stopped."""
    ask(page, "queue=30")
    expect(page.locator(".answer .state")).to_have_text("Waiting in the queue…")
    page.keyboard.press("Escape")
    phase(page, "stopped")


def test_reconnects_in_mid_answer(page: Page, fake: Fake) -> None:
    """The socket breaks twice; the page attaches at its position, and no word is lost or doubled."""
    ask(page, "words=80 gap=0.02 drop=20")
    expect(page.locator("#status")).to_contain_text("Connection lost")
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(80))
    attach = [it for it in fake.frames if it["type"] == "response.attach"]
    assert attach and attach[0]["starting_after"] > 0
    expect(page.locator("#status")).to_be_hidden()


def test_a_lost_create_is_asked_once(page: Page, fake: Fake) -> None:
    """The socket dies before the server's first word: the same key is asked again, and there is one answer."""
    fake.deaf = True
    ask(page, "words=5")
    expect(page.locator(".answer .state")).to_have_text("Sending…")
    expect(page.locator("#conversations a")).to_have_count(1)
    while not any(it["type"] == "response.create" for it in fake.frames):
        page.wait_for_timeout(20)
    fake.deaf = False
    page.evaluate("dispatchEvent(new Event('online'))")
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(5))
    creates = [it for it in fake.frames if it["type"] == "response.create"]
    assert len(creates) == 2 and creates[0] == creates[1]
    assert len(fake.tapes) == 1


@pytest.mark.parametrize("when", ["queued", "answering"])
def test_reload_resumes_exactly_once(page: Page, fake: Fake, when: str) -> None:
    """A reload in the queue or in mid-answer loses nothing and doubles nothing."""
    ask(page, "words=90 gap=0.03" + (" queue=1.5" if when == "queued" else ""))
    if when == "queued":
        phase(page, "queued")
    else:
        expect(answers(page)).to_contain_text("word10")
    page.reload()
    expect(page.locator(".question .bubble")).to_have_count(1)
    phase(page, "completed")
    expect(page.locator(".answer")).to_have_count(1)
    expect(answers(page).locator("p").first).to_have_text(words(90))


def test_another_tab_follows(page: Page, context: BrowserContext, fake: Fake, page_url: str) -> None:
    """A tab that opens the conversation in mid-answer sees it from the start."""
    ask(page, "words=90 gap=0.03")
    expect(answers(page)).to_contain_text("word5")
    other = context.new_page()
    other.goto(page.url)
    expect(answers(other)).to_contain_text("word8")
    phase(other, "completed")
    expect(answers(other).locator("p").first).to_have_text(words(90))
    expect(other.locator(".answer")).to_have_count(1)


def test_switching_conversations_in_mid_answer(page: Page, fake: Fake) -> None:
    """Another conversation can be read and used while an answer runs; it is whole on return."""
    ask(page, "first words=100 gap=0.03")
    expect(answers(page)).to_contain_text("word3")
    page.get_by_role("link", name="New conversation").click()
    expect(page.get_by_role("heading", name="What would you like")).to_be_visible()
    ask(page, "second words=4")
    phase(page, "completed")
    page.locator("#conversations").get_by_role("link", name="first words").click()
    phase(page, "completed")
    expect(answers(page)).to_have_count(1)
    expect(answers(page).locator("p").first).to_have_text(words(100))


def test_lists_renames_and_deletes(page: Page, fake: Fake, context: BrowserContext) -> None:
    """Conversations are listed, opened, searched, renamed and deleted; the address names the open one."""
    older = fake.add_conversation("Chuyện Hà Nội", (("user", "Xin chào"), ("assistant", "**Chào** bạn")))
    fake.add_conversation("두 번째 대화")
    page.reload()
    row = page.locator("#conversations li")
    expect(row).to_have_count(2)
    page.get_by_role("link", name="Chuyện Hà Nội").click()
    expect(answers(page).locator("strong")).to_have_text("Chào")
    assert page.url.endswith(f"#/c/{older['id']}")

    page.get_by_role("searchbox").fill("ha noi")
    expect(row).to_have_count(1)
    page.get_by_role("searchbox").fill("")

    page.get_by_role("button", name="Rename “Chuyện Hà Nội”").click()
    page.get_by_role("textbox", name="New name").fill("Hà Nội")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Hà Nội", exact=True)).to_be_visible()
    expect(page.locator("#title")).to_have_text("Hà Nội")

    page.get_by_role("button", name="Delete “Hà Nội”").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(1)
    assert older["id"] not in fake.conversations
    expect(answers(page)).to_have_count(0)


def test_a_failed_answer_says_why(page: Page, fake: Fake) -> None:
    """The message of the failure is shown; text that was written is kept."""
    ask(page, "fail=6")
    phase(page, "failed")
    expect(page.locator(".answer .state")).to_contain_text("The engine went away.")
    expect(answers(page)).to_contain_text("word4")


def test_signs_in(page: Page, fake: Fake, watch: Watch) -> None:
    """Without a key the page asks for one, refuses a wrong one, and goes on with the right one."""
    watch.expected.append("401")
    fake.key = "right"
    page.reload()
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog).to_contain_text("asks for an API key")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_contain_text("does not accept")
    dialog.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    ask(page, "words=3")
    phase(page, "completed")
    page.reload()
    expect(page.locator("#conversations a")).to_have_count(1)


def test_says_that_the_model_is_loading(page: Page, fake: Fake, watch: Watch) -> None:
    """While the server is not ready it says why; then the message that was typed meanwhile can be sent."""
    watch.expected.append("503")
    fake.ready = False
    page.reload()
    expect(page.locator("#status")).to_contain_text("loading weights, 40 %")
    composer(page).fill("words=3")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    fake.ready = True
    expect(page.locator("#status")).to_be_hidden()
    page.get_by_role("button", name="Send").click()
    phase(page, "completed")


def test_says_that_it_is_offline(page: Page, context: BrowserContext, fake: Fake) -> None:
    """Offline is said, and the answer is picked up afterwards."""
    ask(page, "words=60 gap=0.03")
    expect(answers(page)).to_contain_text("word3")
    context.set_offline(True)
    expect(page.locator("#status")).to_contain_text("offline")
    context.set_offline(False)
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(60))


def test_scrolling_lets_go(page: Page, fake: Fake) -> None:
    """The view follows the answer until the reader scrolls up, and again after "jump to latest"."""
    fake.answer = "\n\n".join(f"paragraph {index}" for index in range(120))
    ask(page, "gap=0.02")
    latest = page.get_by_role("button", name="Jump to latest")
    expect(page.get_by_text("paragraph 40", exact=True)).to_be_in_viewport()
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -400)
    expect(latest).to_be_visible()
    top = page.locator("#scroller").evaluate("it => it.scrollTop")
    expect(page.get_by_text("paragraph 60", exact=True)).to_be_attached()
    assert page.locator("#scroller").evaluate("it => it.scrollTop") == top
    latest.click()
    expect(latest).to_be_hidden()
    phase(page, "completed")
    expect(page.get_by_text("paragraph 119", exact=True)).to_be_in_viewport()


def test_copies(page: Page, context: BrowserContext, fake: Fake) -> None:
    """A message and a block of code can be copied."""
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    fake.answer = "Look:\n\n```sh\nls -l\n```\n"
    ask(page, "show me")
    phase(page, "completed")
    page.locator(".answer").get_by_role("button", name="Copy message").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == fake.answer
    page.get_by_role("button", name="Copy code").click()
    expect(page.locator("[data-copy=code][data-copied]")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "ls -l"


def test_markdown_is_harmless(page: Page, fake: Fake) -> None:
    """HTML is text, images are links, and only web and mail addresses are links."""
    fake.answer = (
        '<img src=x onerror=alert(1)> <script>alert(1)</script> ![pic](https://example.org/p.png) '
        "[bad](javascript:alert(1)) [odd](data:text/html,x) [good](https://example.org/) [mail](mailto:a@b.c)"
    )
    ask(page, "go")
    phase(page, "completed")
    body = answers(page)
    expect(body).to_contain_text("<img src=x onerror=alert(1)> <script>alert(1)</script>")
    expect(body.locator("img, script")).to_have_count(0)
    assert sorted(body.locator("a").evaluate_all("all => all.map(it => it.protocol)")) == ["https:", "https:", "mailto:"]
    assert all("noopener" in rel for rel in body.locator("a").evaluate_all("all => all.map(it => it.rel)"))


def compose(page: Page, text: str) -> None:
    """Have an input method compose `text`, unfinished."""
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})


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
def test_speaks_the_browsers_language(page: Page, fake: Fake, options: dict[str, object]) -> None:
    """Korean and Vietnamese browsers get their own words, and `lang` says so."""
    lang = str(options["locale"])[:2]
    expect(page.locator("html")).to_have_attribute("lang", lang)
    expect(page.locator("#message")).to_have_attribute("placeholder", {"ko": "메시지를 입력하세요", "vi": "Nhập tin nhắn"}[lang])
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


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.mark.parametrize("options", [PHONE], ids=["360px"])
def test_fits_a_phone(page: Page, fake: Fake, options: dict[str, object]) -> None:
    """Nothing is wider than 360 px, the list is a drawer, and targets are at least 44 px."""
    fake.answer = SAMPLE
    expect(page.locator("#model-name")).not_to_be_empty()
    composer(page).fill("Explain prefix reuse, please")
    page.get_by_role("button", name="Send").tap()
    phase(page, "completed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.locator("main button:visible, #composer button").evaluate_all(
        "all => all.map(it => [it.id || it.textContent, it.getBoundingClientRect()])"
        ".filter(([, box]) => box.width < 44 || box.height < 44).map(([name]) => name)"
    )
    assert small == []
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    page.screenshot(path=ARTEFACTS / "phone.png")
    page.get_by_role("button", name="Show conversations").tap()
    expect(page.locator("#conversations a")).to_be_in_viewport()
    page.wait_for_timeout(250)
    page.screenshot(path=ARTEFACTS / "phone-list.png")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Show conversations")).to_be_focused()


@pytest.mark.parametrize("options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"])
def test_screenshots(page: Page, fake: Fake, options: dict[str, object]) -> None:
    """Keep pictures of the page; its text has contrast enough in both schemes."""
    scheme = str(options["color_scheme"])
    for title in ("Kế hoạch du lịch Đà Nẵng", "회의록 요약하기", "Why is the sky blue?"):
        fake.add_conversation(title)
    page.reload()
    page.screenshot(path=ARTEFACTS / f"empty-{scheme}.png")
    fake.answer = SAMPLE
    ask(page, "How does the cut keep the cache warm?\nPlease be brief. gap=0.001")
    phase(page, "completed")
    page.screenshot(path=ARTEFACTS / f"chat-{scheme}.png")
    fake.answer = ""
    ask(page, "And now a long one: words=300 gap=0.03 fail=40")
    expect(answers(page).last).to_contain_text("word12")
    page.screenshot(path=ARTEFACTS / f"streaming-{scheme}.png")
    phase(page, "failed")
    page.screenshot(path=ARTEFACTS / f"failed-{scheme}.png")
    for selector in ("#title", ".figures", ".bubble", "#hint", ".state[data-kind=failed]", "#conversations a"):
        assert contrast(page.locator(selector).last) >= 4.5, selector


def contrast(node: Locator) -> float:
    """The WCAG contrast of a node's text against the first opaque ground behind it."""
    front, back = node.evaluate(
        """node => {
            let ground = node;
            while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [getComputedStyle(node).color, getComputedStyle(ground ?? document.body).backgroundColor];
        }"""
    )
    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    """The relative luminance of `rgb(r, g, b)`."""
    channels = [int(it) / 255 for it in re.findall(r"\d+", color)[:3]]
    linear = [it / 12.92 if it <= 0.03928 else ((it + 0.055) / 1.055) ** 2.4 for it in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_follows_a_fast_answer(page: Page, fake: Fake) -> None:
    """Thousands of deltas with long Markdown keep up: no frame of the page takes long."""
    fake.answer = SAMPLE * 30
    started = time.monotonic()
    ask(page, "gap=0.0")
    phase(page, "completed")
    assert time.monotonic() - started < 30
    expect(answers(page).locator("table")).to_have_count(30)
