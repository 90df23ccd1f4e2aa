"""How the page looks and reads: Markdown, scrolling, copying, a phone, light and dark. Keeps pictures in artefacts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.web.conftest import ARTEFACTS
from tests.web.fake_server import Fake
from tests.web.steps import answers, ask, composer, phase

pytestmark = pytest.mark.browser


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

PHONE = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@pytest.mark.parametrize("options", [PHONE], ids=["360px"])
def test_fits_a_phone(page: Page, fake: Fake, options: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(
    "options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"]
)
def test_screenshots(page: Page, fake: Fake, options: dict[str, Any]) -> None:
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
    for selector in (
        "#title",
        ".figures",
        ".bubble",
        "#hint",
        ".state[data-kind=failed]",
        "#conversations a",
    ):
        assert contrast(page.locator(selector).last) >= 4.5, selector


def contrast(node: Locator) -> float:
    """The WCAG contrast of a node's text against the first opaque ground behind it."""
    front, back = node.evaluate(
        """node => {
            let ground = node;
            const clear = it => getComputedStyle(it).backgroundColor === 'rgba(0, 0, 0, 0)';
            while (ground && clear(ground)) ground = ground.parentElement;
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


STILL = """async it => {
    for (let before; before !== it.scrollTop; await new Promise(wait => setTimeout(wait, 300))) before = it.scrollTop;
    return it.scrollTop;
}"""
"""Where it stands once it no longer moves."""


def test_scrolling_lets_go(page: Page, fake: Fake) -> None:
    """The view follows the answer until the reader scrolls up, and again after "jump to latest"."""
    fake.answer = "\n\n".join(f"paragraph {index}" for index in range(120))
    ask(page, "gap=0.02")
    latest = page.get_by_role("button", name="Jump to latest")
    expect(page.get_by_text("paragraph 40", exact=True)).to_be_attached()
    page.wait_for_function(  # the end is in sight
        """() => {
            const it = document.querySelector('#scroller');
            return it.scrollTop > 0 && it.scrollHeight - it.scrollTop - it.clientHeight < 100;
        }"""
    )
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -400)
    expect(latest).to_be_visible()
    top = page.locator("#scroller").evaluate(STILL)
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
        "<img src=x onerror=alert(1)> <script>alert(1)</script> ![pic](https://example.org/p.png) "
        "[bad](javascript:alert(1)) [odd](data:text/html,x) [good](https://example.org/) [mail](mailto:a@b.c)"
    )
    ask(page, "go")
    phase(page, "completed")
    body = answers(page)
    expect(body).to_contain_text("<img src=x onerror=alert(1)> <script>alert(1)</script>")
    expect(body.locator("img, script")).to_have_count(0)
    assert sorted(body.locator("a").evaluate_all("all => all.map(it => it.protocol)")) == [
        "https:",
        "https:",
        "mailto:",
    ]
    assert all("noopener" in rel for rel in body.locator("a").evaluate_all("all => all.map(it => it.rel)"))


def test_follows_a_fast_answer(page: Page, fake: Fake) -> None:
    """Thousands of deltas with long Markdown keep up: no frame of the page takes long."""
    fake.answer = SAMPLE * 30
    ask(page, "gap=0.0")
    phase(page, "completed")
    expect(answers(page).locator("table")).to_have_count(30)
