"""From a response to the ids that are sent.

    prompt = head · pinned items · kept items · cue
             └ cached by tokenizer   └ ids as stored, so the KV cache serves them

Stored ids are reused, only what is new is encoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from chatserver.domain.ahead import cut_ahead
from chatserver.domain.item import Item, Role, StoredItem
from chatserver.domain.ledger import Ledger
from chatserver.domain.planner import DoesNotFit, Plan, Policy, Window, plan, plan_next
from chatserver.domain.response import Params, Response, Truncation
from chatserver.errors import BadRequest, ContextTooLong, NotFound
from chatserver.ports.conversations import Conversations
from chatserver.ports.turns import Turns
from chatserver.service.engine import ledgers
from chatserver.service.engine.encoder import Encoder, rebuilt
from chatserver.service.engine.layout import Ids, Layout, fingerprint
from chatserver.service.engine.summaries import Summaries
from engine.contract import ModelCard
from engine.token_contract import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one turn sends. `encoded`: ids that were made now, by item id. `max_output` in tokens.

    `carried`: the beginning of the answer, sent behind `ids`. `write_ledger`: makes the ledger; no first token waits.
    """

    ids: Ids
    max_output: int
    write_ledger: Callable[[], Ledger]
    layout: Layout
    encoded: dict[str, Ids] = field(default_factory=dict)
    carried: Ids = ()

    @property
    def length(self) -> int:
        """Tokens that are sent."""
        return len(self.ids) + len(self.carried)

    @property
    def ledger(self) -> Ledger:
        """What the prompt was made of."""
        return self.write_ledger()


@dataclass(frozen=True, slots=True)
class Beginning:
    """What prompts of a branch will begin with, from the one in `turns` turns on (1: the next one)."""

    ids: Ids
    cut: str | None
    turns: int = 1


@dataclass(frozen=True, slots=True)
class Upcoming(Beginning):
    """What the next prompt begins with. `ahead`: the same behind a cut that moves soon."""

    ahead: Beginning | None = None


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
        self._conversations = conversations
        self._turns = turns
        self._default_reserve = default_reserve
        self.encoder = Encoder(card, tokenizer)
        """Makes ids."""
        self.summaries = Summaries(card, tokenizer, conversations)
        """What stands for what cuts dropped."""

    async def build(self, response: Response) -> Prompt:
        """Plan and encode. Raises ContextTooLong with the counts, NotFound if the conversation is gone."""
        params = response.params
        if params.replay_of is not None:
            return await self._build_again(response, params.replay_of)
        stored, carried = await self._items(response)
        layout, encoded = await self.encoder.lay_out(params, stored)
        newest = await self._newest(response.tenant, stored) if self._cuts(params) else None
        layout = layout.with_summary(await self._summary(params, response.conversation, stored, newest))
        if carried:
            layout = replace(layout, carried=len(carried))
        before = self._cut_before(response, layout, newest)
        layout, chosen = self._plan(params, layout, before)
        ids, window = layout.prompt(chosen), self._window(params)
        left = window.room - len(ids) - len(carried)
        ledger = partial(
            ledgers.planned,
            *(self._card, params, layout, chosen, (*ids, *carried)),
            reserve=window.reserve,
            rebuilt=rebuilt(stored, encoded),
            ahead=before.get("ahead"),
        )
        return Prompt(
            ids=ids,
            max_output=min(params.max_output_tokens or self._default_reserve, left),
            write_ledger=cache(ledger),
            layout=layout,
            encoded=encoded,
            carried=carried,
        )

    async def count(self, tenant: str, params: Params, conversation: str | None, leaf: str | None) -> int:
        """Return how many tokens a turn would send; if they do not fit, how many there are. Raises NotFound."""
        asked = Response("", tenant, params, 0, conversation=conversation, parent=leaf)
        try:
            return (await self.build(asked)).length
        except ContextTooLong as error:
            return error.needed

    def upcoming(self, prompt: Prompt, params: Params, item_id: str, answer: Ids) -> Upcoming | None:
        """Return what the next prompt begins with, now that `answer` has ended; None if it cannot fit."""
        layout = replace(prompt.layout, carried=0).with_answer(item_id, answer)
        return self._upcoming(params, layout, ledgers.cut_in(prompt.ledger, prompt.ledger.cut))

    async def upcoming_of(self, tenant: str, conversation_id: str) -> Upcoming | None:
        """Return what the next prompt at a conversation's head begins with, if it is asked like the one before it.

        None: its turns go to another model, or the next one cannot fit. Raises NotFound.
        """
        conversation = await self._conversations.get(tenant, conversation_id)
        stored = await self._conversations.branch(tenant, conversation_id, conversation.head, with_ids=True)
        newest = await self._newest(tenant, stored)
        params = newest.params if newest else Params(self._card.name)
        if params.model != self._card.name:
            return None
        layout, _ = await self.encoder.lay_out(params, stored)
        layout = layout.with_summary(await self._summary(params, conversation_id, stored, newest))
        return self._upcoming(params, layout, ledgers.cut_of(newest))

    async def still_there(
        self, tenant: str, conversation_id: str, items: Iterable[str | None]
    ) -> set[str | None]:
        """Return those of `items` that a conversation still has."""
        found: set[str | None] = set()
        for item in items:
            with contextlib.suppress(NotFound):
                await self._conversations.path(tenant, conversation_id, item)
                found.add(item)
        return found

    async def _summary(
        self,
        params: Params,
        conversation: str | None,
        stored: Sequence[StoredItem],
        newest: Response | None,
    ) -> tuple[str, Ids] | None:
        """Return what stands for what was dropped. `conversation`: a fork's own, not its answers'."""
        if not params.compaction or conversation is None or newest is None or newest.outcome is None:
            return None
        return await self.summaries.of(newest.tenant, conversation, stored, newest.outcome.ledger)

    async def _items(self, response: Response) -> tuple[list[StoredItem], Ids]:
        """Return the items of a prompt, and the ids that its answer begins with. Raises NotFound."""
        messages = response.params.messages
        inline = [
            StoredItem(Item(f"{i}", None, Role(said.role), said.text, parts=said.parts))
            for i, said in enumerate(messages)
        ]
        if response.conversation is None:
            return inline, ()
        leaf = response.inputs[-1] if response.inputs else response.parent
        branch = await self._conversations.branch(
            response.tenant, response.conversation, response.continues or leaf, with_ids=True
        )
        if response.continues is None:
            return [*branch, *inline], ()
        return branch, self.encoder.emitted(branch.pop())

    async def _build_again(self, response: Response, original_id: str) -> Prompt:
        """Return the very prompt of an earlier response. Raises BadRequest if it cannot be made any more."""
        original = await self._turns.get(response.tenant, original_id)
        ledger = original.outcome.ledger if original.outcome else None
        if ledger is None:
            raise BadRequest(f"The response {original_id!r} was never sent.", param="response_id")
        stored, carried = await self._items(original)
        layout, _ = await self.encoder.lay_out(original.params, stored)
        if ledger.summary is not None and original.conversation is not None:
            kept = replace(ledger, next_cut=None)
            layout = layout.with_summary(
                await self.summaries.of(original.tenant, original.conversation, (), kept)
            )
        leading = len(layout.leading)
        spans = Plan(ledger.pinned - leading, ledger.start - leading, ledger.sent, ledger.cut, ledger.trim)
        ids = (*layout.prompt(spans), *carried)
        if fingerprint(ids) != ledger.prompt_hash:
            template = " under another template" if ledger.template_hash != self._card.template_hash else ""
            raise BadRequest(
                f"The prompt of {original_id!r} cannot be made again: its items were changed or encoded{template}.",
                param="response_id",
                code="not_replayable",
            )
        most = min(response.params.max_output_tokens or 1, self._window(original.params).room - len(ids))
        return Prompt(ids, most, lambda: ledger, layout)

    def _cut_before(self, response: Response, layout: Layout, newest: Response | None) -> Mapping[str, Any]:
        """Return where idle work cut what the new message follows, which is what was told to be warm.

        As a rule the newest answer's end said so; but since then an item may have been deleted, or a summary come.
        Asked with that answer's parameters, as it was then: a turn that wants room for a longer answer may need
        another cut, but not because of a message that was only expected.
        """
        new = sum(segment.item_id in response.inputs for segment in layout.segments)
        before = ledgers.cut_of(newest)
        if newest is None or not before or not new:
            return before
        kept = len(layout.segments) - new
        earlier = replace(layout, segments=layout.segments[:kept], ids=layout.ids[:kept])
        with contextlib.suppress(DoesNotFit):
            found = plan_next(earlier.segments, **before, **self._rules(newest.params, earlier))
            return {**before, "cut": found.cut, "trim": found.trim}
        return before

    def _plan(self, params: Params, layout: Layout, before: Mapping[str, Any]) -> tuple[Layout, Plan]:
        """Choose what to send. A message that fits only without the summary goes without it. Raises ContextTooLong."""
        try:
            return layout, plan(layout.segments, **before, **self._rules(params, layout))
        except DoesNotFit as error:
            if layout.summary is not None:
                return self._plan(params, layout.without_summary(), before)
            raise self._too_long(error, self._window(params), params) from None

    def _upcoming(self, params: Params, layout: Layout, before: Mapping[str, Any]) -> Upcoming | None:
        try:
            chosen = plan_next(layout.segments, **before, **self._rules(params, layout))
        except DoesNotFit:
            return None
        soon = cut_ahead(layout.segments, chosen, ahead=before.get("ahead"), **self._rules(params, layout))
        ahead = Beginning(layout.prefix(soon.plan), soon.plan.cut, 1 + soon.turns) if soon else None
        return Upcoming(layout.prefix(chosen), chosen.cut, ahead=ahead)

    async def _newest(self, tenant: str, stored: Sequence[StoredItem]) -> Response | None:
        """Return the newest answer of a branch: its cut stays where it is until the window is full again."""
        response_id = next((s.item.response_id for s in reversed(stored) if s.item.response_id), None)
        if response_id is None:
            return None
        try:
            return await self._turns.get(tenant, response_id)
        except NotFound:
            return None

    def _cuts(self, params: Params) -> bool:
        return params.truncation is not Truncation.DISABLED

    def _rules(self, params: Params, layout: Layout) -> dict[str, Any]:
        return {
            "fixed": layout.fixed,
            "window": self._window(params),
            "policy": Policy(
                params.truncation, params.retention_ratio, params.post_instructions, params.cut_inside
            ),
        }

    def _window(self, params: Params) -> Window:
        # Without truncation the prompt may take all but one token; with it, room for an answer is kept free.
        if params.truncation is Truncation.DISABLED:
            reserve = 1
        else:
            reserve = min(params.max_output_tokens or self._default_reserve, self._card.context // 4)
        return Window(self._card.context, self._card.kv_tokens, reserve)

    def _too_long(self, error: DoesNotFit, window: Window, params: Params) -> ContextTooLong:
        advice = "shorten the input or set truncation to auto"
        if error.single:
            advice = "shorten the newest message"
            if self._cuts(params):
                advice += ", or set truncation.cut_inside to send it without its middle"
        bound = f", {params.post_instructions} behind the instructions" if params.post_instructions else ""
        found = ContextTooLong(
            f"The model's context window is {self._card.context} tokens and leaves {error.limit} for the prompt "
            f"(reserve for the answer: {window.reserve}{bound}), but the prompt has {error.needed} tokens; {advice}.",
            param="input",
        )
        found.needed = error.needed
        return found
