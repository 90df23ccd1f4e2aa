"""The examples of the page for app developers are run against the real web role, so that they stay true."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from chatserver.wire.documents import guide
from tests.javascript import NODE
from tests.program import ROOT

SNIPPETS = re.findall(
    r"^```(\w+) run(?:=(\w+))?\n(.*?)^```$", guide.SOURCE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
WORDS = "w17 w18 w19"


def command(language: str, folder: Path, text: str) -> list[str]:
    if language == "sh":
        return ["bash", "-euo", "pipefail", "-c", text]
    file = folder / {"python": "example.py", "js": "example.mjs"}[language]
    file.write_text(text)
    return (
        [sys.executable, str(file)]
        if language == "python"
        else [str(NODE), "--experimental-eventsource", str(file)]
    )


@pytest.mark.parametrize("web", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("language", "needs", "text"),
    SNIPPETS,
    ids=[f"{kind}-{number}" for number, (kind, *_) in enumerate(SNIPPETS)],
)
async def test_examples_run(web, tmp_path, request, language, needs, text):
    """Each ends by itself with 0, says nothing on stderr, and shows the answer to its last word."""
    if needs == "sdk":
        (tmp_path / "node_modules").symlink_to(request.getfixturevalue("javascript"))
    text = text.replace("127.0.0.1:8000", web.url.removeprefix("http://")).replace(
        "smollm2-135m-instruct", "tiny"
    )
    process = await asyncio.create_subprocess_exec(
        *command(language, tmp_path, text),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
        cwd=ROOT,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
    written = " ".join(re.findall(r"w\d+", out.decode()))
    assert WORDS in written, out.decode()


def test_there_are_examples_in_every_language():
    """curl, Python with both clients, JavaScript with the SDK, EventSource and WebSocket; Swift and Kotlin."""
    assert sorted(language for language, *_ in SNIPPETS) == ["js"] * 3 + ["python"] * 2 + ["sh"] * 2
    assert {"```swift", "```kotlin"} <= set(guide.SOURCE.read_text("utf-8").splitlines())
