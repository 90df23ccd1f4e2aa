"""The page in a real browser: chats, streams, stops, resumes, lists; under the server's own content policy."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.web.conftest import Watch
from tests.web.fake_server import Fake
from tests.web.steps import act, answers, ask, composer, phase, words

pytestmark = pytest.mark.browser


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
    fake.held = True
    ask(page, "words=120 gap=0.005")
    expect(answers(page)).to_contain_text("word5")
    expect(answers(page)).not_to_contain_text("word119")
    fake.held = False
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(120))


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
    expect(page.locator(".answer .state")).to_have_text("Waiting in the queue, place 3…")
    page.keyboard.press("Escape")
    phase(page, "stopped")


def test_reconnects_in_mid_answer(page: Page, fake: Fake) -> None:
    """The socket breaks twice; the page attaches at its position, and no word is lost or doubled."""
    page.evaluate(
        """() => {
            const status = document.querySelector('#status');
            window.told = [];
            new MutationObserver(() => told.push(status.textContent)).observe(
                status, { childList: true, characterData: true, subtree: true, attributes: true });
        }"""
    )  # the page may be back before anybody could look
    ask(page, "words=80 gap=0.02 drop=20")
    phase(page, "completed")
    assert any("Connection lost" in text for text in page.evaluate("told"))
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
    fake.held = True
    ask(page, "words=90 gap=0.03" + (" queue=0.1" if when == "queued" else ""))
    if when == "queued":
        phase(page, "queued")
    else:
        expect(answers(page)).to_contain_text("word8")
    page.reload()
    expect(page.locator(".question .bubble")).to_have_count(1)
    fake.held = False
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
    assert f"#/c/{older['id']}/" in page.url

    page.get_by_role("searchbox").fill("ha noi")
    expect(row).to_have_count(1)
    page.get_by_role("searchbox").fill("")

    page.get_by_role("button", name="Rename “Chuyện Hà Nội”").click()
    page.get_by_role("textbox", name="New name").fill("Hà Nội")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Hà Nội", exact=True)).to_be_visible()
    expect(page.locator("#title")).to_have_text("Hà Nội")
    expect(page.get_by_role("button", name="Rename “Hà Nội”")).to_be_focused()

    page.get_by_role("button", name="Delete “Hà Nội”").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(1)
    assert older["id"] not in fake.trees
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


@pytest.mark.parametrize("what", ["delete", "rename", "delete a message", "delete on a phone"])
def test_says_what_cannot_be_done_offline(
    page: Page, context: BrowserContext, fake: Fake, watch: Watch, what: str
) -> None:
    """What somebody asked for and the network lost is told; all is as before then, and can be done once it is back."""
    watch.expected.append("ERR_INTERNET_DISCONNECTED")
    fake.add_conversation("Tides", (("user", "Hi"), ("assistant", "Hello")))
    with (
        page.expect_request_finished(lambda it: "dialogs.js" in it.url),
        page.expect_request_finished(lambda it: "rename.js" in it.url),
    ):
        page.reload()
    page.get_by_role("link", name="Tides").click()
    expect(answers(page)).to_have_text("Hello")
    rows, dialog = page.locator("#conversations li"), page.get_by_role("dialog")

    def do() -> None:
        if what == "delete on a phone":
            page.set_viewport_size({"width": 390, "height": 760})
            page.locator("#show-list").click()
        if what == "rename":
            page.get_by_role("button", name="Rename “Tides”").click()
            page.get_by_role("textbox", name="New name").fill("Ebb")
            page.keyboard.press("Enter")
            return
        if what != "delete a message":
            page.get_by_role("button", name="Delete “Tides”").click()
        else:
            act(page, "Delete message")
        dialog.get_by_role("button", name="Delete").click()

    context.set_offline(True)
    expect(page.locator("#status")).to_contain_text("offline")
    do()
    notice = page.locator("#notice")
    expect(notice).to_contain_text("could not be reached")
    box = notice.bounding_box()
    assert box is not None
    there = f"document.elementFromPoint({box['x'] + 9}, {box['y'] + 9}).id"
    assert page.evaluate(there) == "notice"  # not behind the list, which covers a phone
    expect(page.get_by_role("link", name="Tides")).to_be_visible()
    context.set_offline(False)
    expect(page.locator("#status")).to_be_hidden()
    expect(answers(page)).to_have_text("Hello")
    page.keyboard.press("Escape")
    do()
    if what == "rename":
        expect(page.get_by_role("link", name="Ebb")).to_be_visible()
    else:
        expect(answers(page) if what == "delete a message" else rows).to_have_count(0)
