"""Markdown that grows: which part of it will never look otherwise. Pure."""

from __future__ import annotations

from markdown_it import MarkdownIt


class Growing:
    """Text to which is only added. All blocks but the last are settled.

    What follows cannot change their looks, but for a link's address that is told at the end of the text.
    """

    def __init__(self) -> None:
        self.rest = ""
        """What is not settled yet."""
        self._parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def add(self, text: str) -> None:
        """Add text."""
        self.rest += text

    def settle(self) -> str:
        """Return what has settled since the last time, whole lines, and take it away from `rest`."""
        starts = [token.map[0] for token in self._parser.parse(self.rest) if token.level == 0 and token.map]
        if not starts or starts[-1] == 0:
            return ""
        lines = self.rest.split("\n")  # as the parser counts them
        settled, self.rest = "\n".join(lines[: starts[-1]]), "\n".join(lines[starts[-1] :])
        return settled

    def close(self) -> str:
        """Return the rest: nothing more comes."""
        rest, self.rest = self.rest, ""
        return rest
