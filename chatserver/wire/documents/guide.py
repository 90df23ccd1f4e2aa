"""The page for app developers: `developers.md`, which is also read in the repository."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from markdown_it import MarkdownIt

from chatserver.wire.documents import html

SOURCE = Path(__file__).with_name("developers.md")


def guide() -> bytes:
    """Return the page. Reads a file, and takes some milliseconds."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(SOURCE.read_text("utf-8"))
    title, tokens = tokens[1].content, tokens[3:]  # the page's own heading
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", re.sub(r"\W+", "-", inline.content.lower()).strip("-"))
    body = parser.renderer.render(tokens, parser.options, {})
    return html.page(
        "/docs/developers",
        title,
        body.replace("<table>", "<div class=wide><table>").replace("</table>", "</table></div>"),
        search=False,
    )
