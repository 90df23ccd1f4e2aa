"""Conversations: seeded ones, the same in every arm, or those of a ShareGPT-like file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS = [
    "tide",
    "moon",
    "sea",
    "ship",
    "harbour",
    "light",
    "storm",
    "chart",
    "rope",
    "deck",
    "wind",
    "star",
    "gull",
]
LONGEST_TEXT = 600
"""Characters that are taken of a message of a file: about 150 tokens of a small window."""


@dataclass(frozen=True, slots=True)
class Step:
    """`kind`: ask · stop (ask, and stop in mid-answer) · regenerate · edit (ask again in the last question's place)."""

    kind: str
    text: str
    tokens: int


def seeded(seed: int, turns: int, *, events: bool) -> list[Step]:
    """Return a conversation: about 30 tokens a message, 24 to 40 an answer; an event in every seventh turn or so."""
    source = random.Random(seed)
    steps = []
    for number in range(turns):
        kind = "ask"
        if events and number > 2 and source.random() < 0.15:
            kind = source.choice(("stop", "regenerate", "edit"))
        text = f"{seed}.{number}: " + " ".join(source.choices(WORDS, k=source.randint(8, 20)))
        steps.append(Step(kind, text, source.randint(24, 40)))
    return steps


def from_file(path: Path, turns: int) -> Iterator[list[Step]]:
    """Yield the conversations of a ShareGPT-like file: [{"conversations": [{"from": "human", "value": …}, …]}, …]."""
    for entry in json.loads(path.read_text(encoding="utf-8")):
        said = entry.get("conversations", ()) if isinstance(entry, dict) else ()
        asked = [
            m["value"][:LONGEST_TEXT] for m in said if m.get("from") in ("human", "user") and m.get("value")
        ]
        if asked:
            yield [Step("ask", text, 32) for text in asked[:turns]]
