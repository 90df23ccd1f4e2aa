"""Branches on the page: answers anew, edits, going on, deleting, copies; in two tabs, over reloads, by keyboard."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.web.conftest import ARTEFACTS, Watch
from tests.web.fake_server import Fake
from tests.web.steps import act, answers, ask, phase, words
from tests.web.test_page_looks import PHONE, contrast

pytestmark = pytest.mark.browser


def count(page: Page, kind: str = "answer") -> Locator:
    """«2 / 3» of the newest answer or question."""
    return page.locator(f".{kind}").last.locator(".count")


def test_answers_again(page: Page, fake: Fake) -> None:
    """The old answer stays beside the new one; the way between them is a button, and keeps place and focus."""
    ask(page, "First words=300 gap=0.001")
    phase(page, "completed")
    expect(page.locator(".family:visible")).to_have_count(0)
    fake.answer = "Another answer"
    act(page, "Answer again")
    phase(page, "completed")
    expect(answers(page)).to_have_text("Another answer")
    expect(count(page)).to_have_text("2 / 2")
    expect(page.locator(".question")).to_have_count(1)
    asked = [it for it in fake.frames if it["type"] == "response.create"][-1]
    assert (asked["input"], asked["conversation"]["parent"]) == (
        [],
        next(iter(fake.trees.values())).under(None)[0],
    )
    top = page.locator(".answer").bounding_box()
    before = page.get_by_role("button", name="Earlier version")
    before.focus()
    page.keyboard.press("Enter")
    expect(answers(page)).to_contain_text("word299")
    expect(count(page)).to_have_text("1 / 2")
    now = page.locator(".answer").bounding_box()
    assert top and now and abs(top["y"] - now["y"]) < 2
    expect(page.get_by_role("button", name="Later version")).to_be_focused()
    expect(page.locator("#announcer")).to_have_text("1 / 2")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("Another answer")


def test_edits_a_question(page: Page, fake: Fake) -> None:
    """Enter asks the changed question as a branch; Esc leaves all as it was; an unchanged one is not asked again."""
    ask(page, "One words=3")
    phase(page, "completed")
    ask(page, "Two words=3")
    expect(page.locator(".answer")).to_have_count(2)
    phase(page, "completed")
    first = page.locator(".question").first
    first.hover()
    first.get_by_role("button", name="Edit").click()
    field = page.get_by_role("textbox", name="Edit")
    expect(field).to_be_focused()
    expect(field).to_have_value("One words=3")
    field.fill("Thrown away")
    page.keyboard.press("Escape")
    expect(first.locator(".bubble")).to_have_text("One words=3")
    expect(first.get_by_role("button", name="Edit")).to_be_focused()
    page.keyboard.press("Enter")
    expect(field).to_be_focused()
    page.keyboard.press("Enter")
    expect(field).to_have_count(0)
    assert sum(it["type"] == "response.create" for it in fake.frames) == 2

    first.get_by_role("button", name="Edit").click()
    field.fill("One, edited words=3")
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_count(1)
    phase(page, "completed")
    expect(page.locator(".bubble")).to_have_text("One, edited words=3")
    expect(count(page, "question")).to_have_text("2 / 2")
    page.get_by_role("button", name="Earlier version").click()
    expect(page.locator(".bubble")).to_have_text(["One words=3", "Two words=3"])
    page.reload()
    expect(page.locator(".bubble")).to_have_text(["One words=3", "Two words=3"])
    expect(count(page.locator("body").page, "question")).to_be_hidden()
    expect(page.locator(".question").first.locator(".count")).to_have_text("1 / 2")


def test_goes_on_with_a_stopped_answer(page: Page, fake: Fake) -> None:
    """Continue is there only when something is missing; what was written stays in view the whole time."""
    ask(page, "words=2000 gap=0.02")
    expect(answers(page)).to_contain_text("word3")
    page.keyboard.press("Escape")
    phase(page, "stopped")
    written = answers(page).inner_text().split("\n")[0]
    fake.answer = "and the rest"
    page.evaluate(
        """() => {
            window.lengths = [];
            const look = () => lengths.push(document.querySelector('.answer .markdown')?.textContent.length ?? 0);
            const all = { childList: true, subtree: true, characterData: true };
            new MutationObserver(look).observe(document.querySelector('#transcript'), all);
        }"""
    )
    act(page, "Continue")
    phase(page, "completed")
    expect(answers(page)).to_contain_text("and the rest")
    assert answers(page).inner_text().startswith(written)
    assert min(page.evaluate("lengths")) >= len(written)
    expect(count(page)).to_have_text("2 / 2")
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    page.get_by_role("button", name="Earlier version").click()
    phase(page, "stopped")
    expect(page.get_by_role("button", name="Continue")).to_have_count(1)


def test_deletes_a_message_and_what_follows(page: Page, fake: Fake, watch: Watch) -> None:
    """It asks first; its sibling takes the place. While an answer runs nothing can be deleted."""
    ask(page, "One words=3")
    phase(page, "completed")
    fake.answer = "Anew"
    act(page, "Answer again")
    phase(page, "completed")
    act(page, "Delete message")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Everything that was said after it")
    dialog.get_by_role("button", name="Cancel").click()
    expect(count(page)).to_have_text("2 / 2")
    act(page, "Delete message")
    dialog.get_by_role("button", name="Delete").click()
    expect(answers(page)).to_contain_text("word2")
    expect(page.locator(".family:visible")).to_have_count(0)
    fake.answer, fake.held = "", True
    ask(page, "words=300 gap=0.03")
    expect(answers(page).last).to_contain_text("word2")
    expect(page.locator(".question").first.get_by_role("button", name="Delete message")).to_be_disabled()
    page.keyboard.press("Escape")
    phase(page, "stopped")
    act(page, "Delete message", "question")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator(".message")).to_have_count(2)
    assert len(next(iter(fake.trees.values())).items) == 2


def test_goes_on_in_a_copy(page: Page, fake: Fake) -> None:
    """A copy up to any message is a conversation of its own; the original stays."""
    ask(page, "One words=3")
    phase(page, "completed")
    ask(page, "Two words=3")
    expect(page.locator(".answer")).to_have_count(2)
    phase(page, "completed")
    original = page.url
    first = page.locator(".answer").first
    first.hover()
    first.get_by_role("button", name="Go on from here").click()
    expect(page.locator(".question")).to_have_count(1)
    expect(page.locator("#notice")).to_contain_text("This is a copy")
    expect(page.locator("#conversations li")).to_have_count(2)
    ask(page, "Elsewhere words=3")
    expect(page.locator(".answer")).to_have_count(2)
    phase(page, "completed")
    page.goto(original)
    page.reload()
    expect(page.locator(".bubble")).to_have_text(["One words=3", "Two words=3"])


def test_two_tabs_stay_in_step(page: Page, context: BrowserContext, fake: Fake, watch: Watch) -> None:
    """What is asked in one tab streams in the other; an answer anew is counted there, and does not take its place."""
    watch.expected.append("404")  # the branch that the other tab deleted
    ask(page, "One words=3")
    phase(page, "completed")
    other = context.new_page()
    other.goto(page.url)
    phase(other, "completed")
    fake.held = True
    ask(page, "Two words=100 gap=0.005")
    expect(answers(other).last).to_contain_text("word5")
    expect(answers(other).last).not_to_contain_text("word99")
    fake.held = False
    phase(other, "completed")
    expect(answers(other).last.locator("p").first).to_have_text(words(100))
    expect(other.locator(".answer")).to_have_count(2)

    fake.answer = "Anew " * 60
    act(page, "Answer again")
    expect(count(other)).to_have_text("1 / 2")
    expect(answers(other).last).to_contain_text("word99")
    other.locator(".answer").last.get_by_role("button", name="Later version").click()
    expect(answers(other).last).to_contain_text("Anew Anew")
    phase(page, "completed")
    phase(other, "completed")
    expect(count(other)).to_have_text("2 / 2")
    act(other, "Delete message", "question")
    other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".question")).to_have_count(1)


def test_a_stale_tab_makes_a_branch(page: Page, context: BrowserContext, fake: Fake) -> None:
    """A tab that could not hear of the other's question asks under what it shows: both branches exist."""
    ask(page, "One words=3")
    phase(page, "completed")
    other = context.new_page()
    other.goto(page.url)
    phase(other, "completed")
    tree = next(iter(fake.trees.values()))
    tree.bells.clear()
    ask(page, "Two words=3")
    expect(page.locator(".answer")).to_have_count(2)
    phase(page, "completed")
    expect(other.locator(".answer")).to_have_count(1)
    ask(other, "Two, from a tab that slept words=3")
    expect(other.locator(".answer")).to_have_count(2)
    phase(other, "completed")
    assert len(tree.items) == 6 and len(tree.under(tree.under(tree.under(None)[0])[0])) == 2
    other.reload()
    expect(other.locator(".bubble").last).to_have_text("Two, from a tab that slept words=3")
    expect(count(other, "question")).to_have_text("2 / 2")
    page.reload()
    expect(page.locator(".bubble").last).to_have_text("Two words=3")
    expect(count(page, "question")).to_have_text("1 / 2")


@pytest.mark.parametrize("when", ["queued", "answering"])
def test_a_reload_keeps_the_branch(page: Page, fake: Fake, when: str) -> None:
    """Reloaded while it answers anew, the page goes on with that answer, and can turn to the old one meanwhile."""
    ask(page, "words=80 gap=0.02" + (" queue=0.1" if when == "queued" else ""))
    phase(page, "completed")
    fake.held = True
    act(page, "Answer again")
    phase(page, when)
    if when == "answering":
        expect(answers(page)).to_contain_text("word5")
    page.reload()
    expect(count(page)).to_have_text("2 / 2")
    page.get_by_role("button", name="Earlier version").click()
    expect(count(page)).to_have_text("1 / 2")
    phase(page, "completed")
    fake.held = False
    page.get_by_role("button", name="Later version").click()
    expect(count(page)).to_have_text("2 / 2")
    phase(page, "completed")
    expect(answers(page).locator("p").first).to_have_text(words(80))
    expect(page.locator(".answer")).to_have_count(1)


def test_reasoning_is_folded(page: Page, fake: Fake) -> None:
    """It says that it thinks, then for how long; unfolded it can be read, also after a reload."""
    fake.held = True
    ask(page, "think=30 gap=0.05 words=4")
    expect(page.locator(".folded summary")).to_have_text("Thinking…")
    expect(page.locator(".thoughts")).to_be_hidden()
    fake.held = False
    phase(page, "completed")
    expect(page.locator(".folded summary")).to_have_text(re.compile(r"Thought for [1-9]\d* s"))
    page.locator(".folded summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".thoughts")).to_contain_text("thought29")
    page.reload()
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.locator(".folded summary")).to_have_text(re.compile(r"Thought for \d+ s"))
    expect(answers(page)).to_contain_text("word3")


def test_says_that_the_engine_restarted(page: Page, fake: Fake) -> None:
    """A lost engine is told where the answer stands, and forgotten when it goes on."""
    page.evaluate(
        """() => {
            window.told = [];
            const look = () => told.push(document.querySelector('.answer .state')?.textContent);
            const all = { childList: true, subtree: true, characterData: true };
            new MutationObserver(look).observe(document.querySelector('#transcript'), all);
        }"""
    )  # each may be gone before anybody could look
    ask(page, "words=20 recover=5 gap=0.02")
    phase(page, "completed")
    expect(page.locator(".answer .state")).to_be_hidden()
    told = page.evaluate("told")
    lost = told.index("The engine was lost. The answer goes on as soon as another is ready…")
    assert lost < told.index("The engine restarted; the answer goes on…")
    expect(answers(page).locator("p").first).to_have_text(words(20))


REFUSALS = [
    (
        429,
        "rate_limit_exceeded",
        {"retry-after": "12"},
        "It can be sent again in 12 s.",
    ),
    (402, "insufficient_quota", {}, "Ask whoever gave you the key."),
    (400, "context_length_exceeded", {}, "Start a new one or send less."),
    (400, "invalid_value", {}, "The server's own words"),
]


@pytest.mark.parametrize(("status", "code", "headers", "told"), REFUSALS, ids=[it[1] for it in REFUSALS])
def test_refusals_say_what_to_do(
    page: Page, fake: Fake, status: int, code: str, headers: dict[str, str], told: str
) -> None:
    """And the message can be sent again."""
    error = {
        "code": code,
        "message": "The server's own words",
        "type": "x",
        "param": None,
        "headers": headers,
    }
    fake.refuse = {"status": status, "error": error}
    ask(page, "words=3")
    phase(page, "failed")
    expect(page.locator(".answer .state")).to_contain_text(told)
    page.get_by_role("button", name="Send again").click()
    phase(page, "completed")
    expect(page.locator(".question")).to_have_count(1)


@pytest.mark.parametrize(
    "options", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"]
)
def test_what_the_model_no_longer_sees(page: Page, fake: Fake, options: dict[str, Any], request: Any) -> None:
    """A line where the window was cut, dimmed messages above it, the summary folded; the account unfolds."""
    look = request.node.callspec.id
    fake.answer = "The sea is wide, and the boats are small."
    for text in ("Tell me about the sea", "And about boats", "And about sails cut=2 think=2"):
        ask(page, text)
        if look == "phone":
            page.get_by_role("button", name="Send").tap()
        expect(page.locator(".bubble").last).to_have_text(text)
        phase(page, "completed")
    expect(page.locator(".cut")).to_have_text("The model no longer sees 3 earlier messages.")
    expect(page.locator(".dropped")).to_have_count(3)
    expect(page.locator(".folded").filter(has_text="Summary of the messages above")).to_have_count(1)
    act(page, "Answer again") if look != "phone" else page.locator(".answer").last.get_by_role(
        "button", name="Answer again"
    ).tap()
    expect(count(page)).to_have_text("2 / 2")
    phase(page, "completed")
    page.locator("summary").filter(has_text="Summary of").click()
    expect(page.get_by_text("They spoke of the sea")).to_be_visible()
    page.locator(".details summary").last.click()
    expect(page.locator(".details dl").last).to_contain_text("of 4,096 tokens")
    page.wait_for_timeout(200)
    page.screenshot(path=ARTEFACTS / f"branches-{look}.png")
    for selector in (".details dl", ".count", ".cut", ".folded summary"):
        assert contrast(page.locator(selector).last) >= 4.5, selector
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".question").last.hover()
    page.locator(".question").last.get_by_role("button", name="Edit").click()
    page.screenshot(path=ARTEFACTS / f"editing-{look}.png")
