"""What the terminal says: its commands, and figures in a line."""

from __future__ import annotations

import re

from chatserver.client import Result

COMMANDS = {
    "/stop": "stop the answer, also while it is written; Ctrl-C does the same",
    "/regenerate": "another answer to your last message",
    "/stats": "how the last answer came about: tokens, cache, times, cost",
    "/history": "the conversation so far",
    "/resume": "the last conversations; with a number or an id: go on with that one",
    "/new": "begin a new conversation",
    "/help": "this list",
    "/quit": "leave; so does Ctrl-D",
}
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return text without characters that command a terminal or turn its lines around."""
    return _UNSEEN.sub("", text)


def help_text() -> str:
    """Return the list of commands."""
    lines = [f"{name:<12} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [*lines, "Enter sends, Alt-Enter begins a new line; the arrow keys bring back what you said."]
    )


def in_short(result: Result) -> str:
    """Return an answer's figures in one line, "" without any."""
    if result.usage is None:
        return ""
    used, timing = result.usage, result.raw.get("timing") or {}
    parts = [f"{used.output} tokens", f"{used.cached} of {used.input} prompt tokens from the cache"]
    if timing.get("tokens_per_second"):
        parts.append(f"{timing['tokens_per_second']:.0f} tokens/s")
    if used.cost:
        parts.append(used.cost)
    return " · ".join(parts)


def in_full(result: Result) -> str:
    """Return everything that the server tells of an answer, one figure a line."""
    used, raw = result.usage, result.raw
    timing, context = raw.get("timing") or {}, raw.get("context") or {}
    rows: list[tuple[str, object]] = [
        ("answer", result.id),
        ("status", result.status),
        ("model", result.model),
    ]
    if used:
        rows += [
            (
                "prompt",
                f"{used.input} tokens, {used.cached} from the cache, {used.input - used.cached} computed",
            ),
            (
                "output",
                f"{used.output} tokens" + (f", {used.reasoning} of reasoning" if used.reasoning else ""),
            ),
            ("cost", used.cost or "no prices"),
        ]
    if timing:
        rows += [
            ("queued", f"{timing['queued_ms']:.0f} ms"),
            ("first token", f"{timing['ttft_ms']:.0f} ms, {timing['prefill_ms']:.0f} of them in the engine"),
            ("speed", f"{timing['tokens_per_second']:.1f} tokens/s"),
        ]
    if context:
        dropped = len(context.get("dropped") or ())
        rows.append(
            ("window", f"{context['sent']} of {context['window']} tokens sent, {dropped} items dropped")
        )
    return "\n".join(f"{name:<12} {value}" for name, value in rows)
