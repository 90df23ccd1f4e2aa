"""What a tool gave needs its call: on the branch that it goes under, if the request has not brought it along.

    request: output of call c ──> last item of the branch ──> whole branch ──> no call c: refused, nothing is stored

Requests without outputs ask nothing here, and those that answer the calls of the last answer one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chatserver.domain.item import Item, PartKind
from chatserver.errors import Conflict
from chatserver.ports.conversations import Conversations
from chatserver.ports.turns import Turns
from chatserver.wire.commands import Orphan


class Calls:
    """Finds the calls that outputs answer."""

    def __init__(self, conversations: Conversations, turns: Turns) -> None:
        self._conversations = conversations
        self._turns = turns

    async def check(
        self, tenant: str, conversation_id: str, leaf: str | None, orphans: Sequence[Orphan], *, at_head: bool
    ) -> None:
        """Raise BadRequest for an output whose call is not between the root and `leaf`; NotFound.

        `at_head`: `leaf` was the conversation's head. Raises Conflict if a turn runs there, which may make the call, or
        if the head has moved. Any other `leaf` that is not there is refused by the step that stores the output.
        """
        alone = await self._alone(tenant, conversation_id, leaf, orphans, at_head) if orphans else []
        if not alone:
            return
        # in this order: a turn that ends between the two has moved the head by then
        if at_head and await self._turns.running(tenant, conversation_id):
            raise _busy(alone[0], "a turn of this conversation is still running; wait for its end or stop it")
        if at_head and (await self._conversations.get(tenant, conversation_id)).head != leaf:
            raise _busy(alone[0], "the conversation has moved on since; send it again")
        raise alone[0].refusal()

    async def _alone(
        self, tenant: str, conversation_id: str, leaf: str | None, orphans: Sequence[Orphan], at_head: bool
    ) -> list[Orphan]:
        """Return the outputs that have no call on the branch."""
        if leaf is None:
            return [*orphans]
        (last,) = await self._conversations.some(tenant, conversation_id, [leaf])
        if last is None:
            return [*orphans] if at_head else []
        alone = _without_call(orphans, [last.item])
        if alone:
            branch = await self._conversations.branch(tenant, conversation_id, leaf, with_ids=False)
            alone = _without_call(alone, (stored.item for stored in branch))
        return alone


def _without_call(orphans: Sequence[Orphan], items: Iterable[Item]) -> list[Orphan]:
    called = {part.call_id for item in items for part in item.parts if part.kind is PartKind.CALL}
    return [orphan for orphan in orphans if orphan.call_id not in called]


def _busy(orphan: Orphan, why: str) -> Conflict:
    return Conflict(
        f"{orphan.field}: there is no call {orphan.call_id!r} yet, and {why}",
        param=orphan.field,
        code="conversation_busy",
        retry_after=1.0,
    )
