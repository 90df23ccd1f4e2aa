"""From items to token ids: what is stored is taken as it is, only what is new is encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from chatserver.domain.item import Item, PartKind, Role, StoredItem
from chatserver.domain.planner import Segment
from chatserver.domain.response import Params
from chatserver.service.engine.layout import Ids, Layout
from engine.contract import ModelCard
from engine.token_contract import Shown, Tokenizer

ENCODE_IN_THREAD = 8_000
"""Characters from which encoding leaves the event loop: about 1 ms of work."""
ITEM_COST = 200
"""Characters that an item's own overhead is worth."""
TOKEN_COST = 4
"""Characters that a token is worth."""

T = TypeVar("T")


class Encoder:
    """Makes the ids of one model's prompts."""

    def __init__(self, card: ModelCard, tokenizer: Tokenizer) -> None:
        self._card = card
        self._tokenizer = tokenizer

    async def lay_out(self, params: Params, stored: list[StoredItem]) -> tuple[Layout, dict[str, Ids]]:
        """Return the branch with its ids, and those that had to be made, by item id."""
        instructions, body = _instructions(params, stored)
        tools = params.tools if params.tool_choice != "none" else ""
        head = await _off_loop(len(instructions or ""), lambda: self._tokenizer.head(instructions, tools))
        prefix = params.prefix
        begun = await _off_loop(len(prefix), lambda: self._tokenizer.encode(prefix)) if prefix else ()
        encoded = await self._encode([s.item for s in body if not self._current(s)])
        ids = tuple(encoded.get(s.item.id) or s.ids or () for s in body)
        layout = Layout(
            head=head,
            cue=(*self._tokenizer.cue(params.thinking), *begun),
            leading=tuple(s.item.id for s in stored[: len(stored) - len(body)]),
            segments=tuple(Segment(s.item.id, s.item.role, len(i)) for s, i in zip(body, ids, strict=True)),
            ids=ids,
        )
        return layout, encoded

    async def shown(self, emitted: Sequence[int], thinking: bool | None = None) -> Shown:
        """Return an answer as later prompts have it. `thinking`: as it was asked for."""
        return await _off_loop(len(emitted) * TOKEN_COST, lambda: self._tokenizer.shown(emitted, thinking))

    def emitted(self, answer: StoredItem) -> Ids:
        """Return what the model wrote of an answer; encoded anew if that was under another template."""
        return answer.emitted if self._current(answer) else self._tokenizer.encode(answer.item.text)

    def _current(self, stored: StoredItem) -> bool:
        return stored.ids is not None and stored.template_hash == self._card.template_hash

    async def _encode(self, items: Sequence[Item]) -> dict[str, Ids]:
        """Encode items; many together or a long one off the event loop."""
        return await _off_loop(
            sum(len(item.text) + ITEM_COST for item in items),
            lambda: {
                item.id: self._tokenizer.segment(item.role.value, item.text, _calls(item)) for item in items
            },
        )


def rebuilt(stored: Sequence[StoredItem], encoded: Mapping[str, Ids]) -> int:
    """Count the items whose ids another tokenizer or template had made."""
    return sum(s.ids is not None and s.item.id in encoded for s in stored)


def _calls(item: Item) -> tuple[tuple[str, str], ...]:
    return tuple((part.name, part.text) for part in item.parts if part.kind is PartKind.CALL)


async def _off_loop(cost: int, encode: Callable[[], T]) -> T:
    """Encode in a thread if it takes long. `cost`: about as many characters."""
    return await asyncio.to_thread(encode) if cost > ENCODE_IN_THREAD else encode()


def _instructions(params: Params, stored: list[StoredItem]) -> tuple[str | None, list[StoredItem]]:
    """Return the system text that opens the prompt, and the items that follow it.

    Templates put one system message at the head: the request's instructions, or else the first item if it is one.
    """
    if params.instructions is not None:
        return params.instructions, stored
    if stored and stored[0].item.role in (Role.SYSTEM, Role.DEVELOPER):
        return stored[0].item.text, stored[1:]
    return None, stored
