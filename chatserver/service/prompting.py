"""From a response to the ids that are sent.

    prompt = head · pinned items · kept items · cue
             └ cached by tokenizer   └ ids as stored, so the KV cache serves them

Stored ids are reused, only what is new is encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatserver.domain.item import Item, Role, StoredItem
from chatserver.domain.planner import DoesNotFit, Plan, Segment, Window, plan
from chatserver.domain.response import Ledger, Params, Response, Truncation
from chatserver.errors import ContextTooLong, NotFound
from chatserver.ports.conversations import Conversations
from chatserver.ports.turns import Turns
from engine.contract import ModelCard, Tokenizer

ENCODE_IN_THREAD = 8_000
"""Characters from which encoding leaves the event loop: about 1 ms of work."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one turn sends. `encoded`: ids that were made now, by item id. `max_output` in tokens."""

    ids: tuple[int, ...]
    max_output: int
    ledger: Ledger
    encoded: dict[str, tuple[int, ...]] = field(default_factory=dict)


class PromptBuilder:
    """Builds prompts for one model."""

    def __init__(
        self,
        card: ModelCard,
        tokenizer: Tokenizer,
        conversations: Conversations,
        turns: Turns,
        *,
        default_reserve: int,
    ) -> None:
        self._card = card
        self._tokenizer = tokenizer
        self._conversations = conversations
        self._turns = turns
        self._default_reserve = default_reserve

    async def build(self, response: Response) -> Prompt:
        """Plan and encode. Raises ContextTooLong with the counts, NotFound if the conversation is gone."""
        stored = await self._items(response)
        instructions, stored = _instructions(response.params, stored)
        head = await self._off_loop(instructions or "", lambda: self._tokenizer.head(instructions))
        cue = self._tokenizer.cue()
        encoded = {s.item.id: await self._encode(s.item) for s in stored if not self._current(s)}
        ids = [encoded.get(s.item.id) or s.ids or () for s in stored]
        segments = [Segment(s.item.id, s.item.role, len(i)) for s, i in zip(stored, ids, strict=True)]
        window = self._window(response.params)
        try:
            chosen = plan(
                segments,
                fixed=len(head) + len(cue),
                window=window,
                policy=response.params.truncation,
                retention_ratio=response.params.retention_ratio,
                cut=await self._last_cut(response, stored),
            )
        except DoesNotFit as error:
            raise self._too_long(error, window) from None
        kept = [*range(chosen.pinned), *range(chosen.start, len(segments))]
        prompt = (*head, *(token for index in kept for token in ids[index]), *cue)
        return Prompt(
            ids=prompt,
            max_output=min(
                response.params.max_output_tokens or self._default_reserve,
                window.room - len(prompt),
            ),
            ledger=self._ledger(response.params, window, segments, kept, chosen),
            encoded=encoded,
        )

    def answer_ids(self, emitted: Sequence[int]) -> tuple[int, ...]:
        """Return the ids of an answer's item: cue, what was emitted, and what closes it."""
        return (*self._tokenizer.cue(), *emitted, *self._tokenizer.tail(emitted))

    async def _items(self, response: Response) -> list[StoredItem]:
        if response.conversation is None:
            return [
                StoredItem(Item(f"{index}", None, Role(role), text))
                for index, (role, text) in enumerate(response.params.messages)
            ]
        leaf = response.inputs[-1] if response.inputs else response.parent
        return await self._conversations.branch(response.tenant, response.conversation, leaf, with_ids=True)

    def _current(self, stored: StoredItem) -> bool:
        return stored.ids is not None and stored.template_hash == self._card.template_hash

    async def _encode(self, item: Item) -> tuple[int, ...]:
        return await self._off_loop(item.text, lambda: self._tokenizer.segment(item.role.value, item.text))

    async def _off_loop(self, text: str, encode) -> tuple[int, ...]:
        return await asyncio.to_thread(encode) if len(text) > ENCODE_IN_THREAD else encode()

    async def _last_cut(self, response: Response, stored: Sequence[StoredItem]) -> str | None:
        """Return the cut of the branch's newest answer: it stays where it is until the window is full again."""
        if response.params.truncation is Truncation.DISABLED or response.conversation is None:
            return None
        newest = next((s.item.response_id for s in reversed(stored) if s.item.response_id), None)
        if newest is None:
            return None
        try:
            outcome = (await self._turns.get(response.tenant, newest)).outcome
        except NotFound:
            return None
        return outcome.ledger.cut if outcome and outcome.ledger else None

    def _window(self, params: Params) -> Window:
        # Without truncation the prompt may take all but one token; with it, room for an answer is kept free.
        if params.truncation is Truncation.DISABLED:
            reserve = 1
        else:
            reserve = min(params.max_output_tokens or self._default_reserve, self._card.context // 4)
        return Window(self._card.context, self._card.kv_tokens, reserve)

    def _too_long(self, error: DoesNotFit, window: Window) -> ContextTooLong:
        advice = (
            "shorten the newest message" if error.single else "shorten the input or set truncation to auto"
        )
        return ContextTooLong(
            f"The model's context window is {self._card.context} tokens and leaves {error.limit} for the prompt "
            f"(reserve for the answer: {window.reserve}), but the prompt has {error.needed} tokens; {advice}.",
            param="input",
        )

    def _ledger(
        self,
        params: Params,
        window: Window,
        segments: Sequence[Segment],
        kept: Sequence[int],
        chosen: Plan,
    ) -> Ledger:
        keep = set(kept)
        return Ledger(
            window=self._card.context,
            sent=chosen.sent,
            reserve=window.reserve,
            policy=params.truncation.value,
            kept=tuple(segments[i].item_id for i in kept),
            dropped=tuple(s.item_id for i, s in enumerate(segments) if i not in keep),
            cut=chosen.cut,
            template_hash=self._card.template_hash,
        )


def _instructions(params: Params, stored: list[StoredItem]) -> tuple[str | None, list[StoredItem]]:
    """Return the system text that opens the prompt, and the items that follow it.

    Templates put one system message at the head: the request's instructions, or else the first item if it is one.
    """
    if params.instructions is not None:
        return params.instructions, stored
    if stored and stored[0].item.role in (Role.SYSTEM, Role.DEVELOPER):
        return stored[0].item.text, stored[1:]
    return None, stored
