"""Conversations: seeded ones, the same in every arm, or those of a ShareGPT-like file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
SHORTEST_ANSWER, USUAL_ANSWER, LONGEST_ANSWER = 8, 32, 64
"""Tokens of an answer in a conversation of a file; the usual one if the file has none."""


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
    """Yield the conversations of a ShareGPT-like file: [{"conversations": [{"from": "human", "value": …}, …]}, …].

    An answer gets about as many tokens as the file's had, SHORTEST to LONGEST_ANSWER.
    """
    for entry in json.loads(path.read_text(encoding="utf-8")):
        said = entry.get("conversations", ()) if isinstance(entry, dict) else ()
        steps: list[Step] = []
        for message in said:
            text = message.get("value")
            if message.get("from") in ("human", "user") and text:
                steps.append(Step("ask", text[:LONGEST_TEXT], USUAL_ANSWER))
            elif message.get("from") in ("gpt", "assistant") and text and steps:
                tokens = max(SHORTEST_ANSWER, min(LONGEST_ANSWER, len(text) // 4))
                steps[-1] = replace(steps[-1], tokens=tokens)
        if steps:
            yield steps[:turns]


def write_file(path: Path, seed: int, conversations: int, turns: int) -> None:
    """Write a ShareGPT-like file: most messages are short, a few as long as LONGEST_TEXT (log-normal)."""
    source = random.Random(seed)

    def said(speaker: str, opening: str) -> dict[str, str]:
        words = source.choices(WORDS, k=min(LONGEST_TEXT // 5, 1 + int(source.lognormvariate(2.3, 0.9))))
        return {"from": speaker, "value": f"{opening}{' '.join(words)}"}

    talks = [
        [
            message
            for turn in range(turns)
            for message in (said("human", f"{seed}.{number}.{turn}: "), said("gpt", ""))
        ]
        for number in range(conversations)
    ]
    entries = [{"id": f"{seed}.{number}", "conversations": talk} for number, talk in enumerate(talks)]
    path.write_text(json.dumps(entries), encoding="utf-8")
