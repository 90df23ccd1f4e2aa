"""Compaction: what a cut drops, told by the model in a few words that stay behind the head.

    branch   head │ a b c d e f │ g h            prompt   head │ S │ g h
                         cut ───┘                              └ under f, the last item that it covers

A summary is an item beside the branch: under the last item that it covers, with an id that follows from that item's.
So it is found without being looked for, an edit or a removal of anything it covers takes it away, and two engines that
write the same one store it once. The next cut's summary is made from this one and what was dropped since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatserver.domain.ids import summary_id
from chatserver.domain.item import Item, Role, StoredItem
from chatserver.domain.ledger import Ledger
from chatserver.domain.planner import SCHEDULER_MARGIN
from chatserver.domain.response import Response
from chatserver.ports.conversations import Conversations
from chatserver.service.engine.layout import Ids, Layout
from engine.contract import ModelCard
from engine.token_contract import Tokenizer

MAX_SUMMARY = 512
"""Tokens of a summary, at most; in a small window an eighth of it."""
OPENING = "Summary of the earlier conversation:\n"
REQUEST = (
    "Summarise our conversation so far for yourself: facts, names, numbers, decisions, wishes and open questions. "
    "Answer with the summary only, in the language of the conversation."
)


@dataclass(frozen=True, slots=True)
class Compaction:
    """A summary to be written. `ids`: what to send; `covers`: the last item that it covers; `most`: its tokens.

    `wish`: the answer whose end moved the cut; who pays for that answer pays for the summary.
    """

    wish: Response
    conversation: str
    ids: Ids
    covers: str
    most: int


class Summaries:
    """Finds the summary of a prompt, and says which one is to be written."""

    def __init__(self, card: ModelCard, tokenizer: Tokenizer, conversations: Conversations) -> None:
        self._card = card
        self._tokenizer = tokenizer
        self._conversations = conversations

    async def of(
        self, tenant: str, conversation: str, branch: Sequence[StoredItem], ledger: Ledger | None
    ) -> tuple[str, Ids] | None:
        """Return the summary of what a branch's newest answer had dropped: its id, its token ids.

        While it is not written the one of the cut before stands: it is not wrong, it only says less.
        """
        if ledger is None or (ledger.next_cut is None and ledger.summary is None):
            return None
        covered = _before([stored.item.id for stored in branch], ledger.next_cut)
        wanted = [summary_id(covered)] if covered else []
        wanted += [ledger.summary] if ledger.summary and ledger.summary not in wanted else []
        for found in await self._conversations.some(tenant, conversation, wanted):
            if found is not None:
                current = found.ids is not None and found.template_hash == self._card.template_hash
                return found.item.id, found.ids if current and found.ids else self.encode(found.item.text)
        return None

    def encode(self, text: str) -> Ids:
        """Return a summary's text as it stands in prompts."""
        return self._tokenizer.segment(Role.SYSTEM.value, OPENING + text)

    def wanted(self, wish: Response, layout: Layout, cut: str | None) -> Compaction | None:
        """Return the summary that a cut needs, None if the layout has it or it cannot be made.

        It is asked for behind the very prompt that was sent last, so that all but the question is in the cache.
        """
        names = [segment.item_id for segment in layout.segments]
        covered = _before(names, cut)
        if covered is None or wish.conversation is None or layout.summary == summary_id(covered):
            return None
        end = names.index(covered) + 1
        start = max((i + 1 for i, name in enumerate(names) if summary_id(name) == layout.summary), default=0)
        question = (*self._tokenizer.segment(Role.USER.value, REQUEST), *self._tokenizer.cue())
        most = min(MAX_SUMMARY, self._card.context // 8)
        room = min(self._card.context, self._card.kv_tokens) - SCHEDULER_MARGIN - most - len(question)
        room -= len(layout.head)
        while start < end and sum(map(len, layout.ids[start:end])) > room:
            start += 1
        if start == end:
            return None
        dropped = [token for ids in layout.ids[start:end] for token in ids]
        return Compaction(wish, wish.conversation, (*layout.head, *dropped, *question), covered, most)


def summary_item(covers: str, text: str, cost: tuple[int, int, int], now: int) -> Item:
    """Return the item. `cost`: tokens of the prompt, of them from the cache, written."""
    return Item(summary_id(covers), covers, Role.SUMMARY, text, created_at=now, cost=cost)


def _before(names: Sequence[str], cut: str | None) -> str | None:
    index = names.index(cut) if cut in names else 0
    return names[index - 1] if index else None
