"""Beginning responses: from a checked request to jobs in the queue.

    request ── where ── which model ── ids ──> one step of the store for each answer

Several answers to one input are several responses: the first appends the input, the others stand beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from chatserver.domain.ids import SHARDS, shard_for, shard_of
from chatserver.domain.item import Item
from chatserver.domain.response import Params, Response
from chatserver.errors import (
    BadRequest,
    ChatServerError,
    Conflict,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)
from chatserver.ports.registry import ServedModel
from chatserver.ports.turns import NewTurn, Turns
from chatserver.service.fresh import fresh_id
from chatserver.service.web.admission import Payer, estimate
from chatserver.service.web.hub import Hub
from chatserver.service.web.models import Models, with_defaults
from chatserver.service.web.places import Spot, Spots, chain, title_of
from chatserver.service.web.prices import Prices
from chatserver.settings import Settings
from chatserver.wire.commands import CompleteChat, CreateResponse


class Asking:
    """Begins responses. `hub`: of this process, which reads the tapes of those that are watched."""

    def __init__(
        self,
        turns: Turns,
        models: Models,
        spots: Spots,
        *,
        hub: Hub,
        settings: Settings,
        prices: Prices,
        clock: Callable[[], float],
    ) -> None:
        self._turns = turns
        self._models = models
        self._spots = spots
        self._hub = hub
        self._settings = settings
        self._prices = prices
        self._clock = clock

    async def respond(
        self,
        tenant: str,
        ask: CreateResponse,
        *,
        key: str | None,
        fingerprint: str,
        watch: bool,
        payer: Payer,
    ) -> tuple[Response, bool]:
        """Begin a response; return it, and False if the idempotency `key` named an earlier one.

        `fingerprint` identifies the request's content. `watch`: somebody here is about to read the tape.
        Raises BadRequest, NotFound, Conflict, Overloaded, Unavailable, and what `payer.reserve` raises.
        """
        spot = await self._spots.find(tenant, ask)
        model = await self._models.resolve(ask.params.model or spot.model)
        shard = spot.shard if spot.shard is not None else _pick_shard(tenant, key)
        now = self._clock()
        items = chain(spot.messages, spot.parent, int(now), lambda: fresh_id("msg", shard))
        response = Response(
            id=fresh_id("resp", shard),
            tenant=tenant,
            params=_params(ask, spot, model),
            created_at=int(now),
            accepted_at=now,
            conversation=fresh_id("conv", shard) if spot.create else spot.conversation,
            parent=spot.parent,
            inputs=tuple(item.id for item in items),
            previous=ask.previous,
            continues=spot.continues,
            siblings=_several("resp", shard, ask.count),
            item_id=fresh_id("msg", shard),
            stored=ask.store,
            fleeting=not ask.store,
            payer=payer.key,
            price=self._prices.of(model),
        )
        turn = self._turn(response, items, spot, key, fingerprint, watch=watch, deserted=ask.background)
        return await self._begin(turn, payer, spot.tokens, model.context)

    async def complete(
        self, tenant: str, ask: CompleteChat, *, key: str | None, fingerprint: str, payer: Payer
    ) -> tuple[Response, bool]:
        """Begin an answer to messages that are kept if `ask.conversation` says where; otherwise like `respond`."""
        spot = await self._spots.of_chat(tenant, ask)
        model = await self._models.resolve(ask.params.model)
        shard = spot.shard if spot.shard is not None else _pick_shard(tenant, key)
        now = self._clock()
        items = chain(spot.messages, spot.parent, int(now), lambda: fresh_id("msg", shard))
        response = Response(
            id=fresh_id("chatcmpl", shard),
            tenant=tenant,
            params=with_defaults(ask.params, model, spot.inline),
            created_at=int(now),
            accepted_at=now,
            conversation=fresh_id("conv", shard) if spot.create else spot.conversation,
            parent=spot.parent,
            inputs=tuple(item.id for item in items),
            siblings=_several("chatcmpl", shard, ask.count),
            item_id=fresh_id("msg", shard),
            stored=ask.conversation is not None,
            fleeting=ask.fleeting,
            payer=payer.key,
            price=self._prices.of(model),
        )
        turn = self._turn(response, items, spot, key, fingerprint, watch=True, deserted=False)
        return await self._begin(turn, payer, spot.tokens, model.context)

    def _turn(
        self,
        response: Response,
        items: Sequence[Item],
        spot: Spot,
        key: str | None,
        fingerprint: str,
        *,
        watch: bool,
        deserted: bool,
    ) -> NewTurn:
        return NewTurn(
            response=response,
            items=tuple(items),
            siblings=tuple(_sibling(response, number) for number in range(len(response.siblings))),
            exclusive=spot.exclusive,
            create=spot.create,
            title=title_of(spot.messages),
            idempotency_key=key,
            fingerprint=fingerprint,
            watcher=self._hub.web_id if watch else None,
            deserted=deserted,
        )

    async def _begin(self, turn: NewTurn, payer: Payer, known: int, window: int) -> tuple[Response, bool]:
        """Begin once the payer has set aside what it may take; give that back if it turns out not to begin."""
        response, params = turn.response, turn.response.params
        texts = [*(item.text for item in turn.items), *(message.text for message in params.messages)]
        prompt = known + estimate([*texts, params.instructions or "", params.tools, params.prefix])
        output = params.max_output_tokens or self._settings.max_output_tokens
        all_of_it = (response, *turn.siblings)
        try:
            await payer.reserve(all_of_it, min(prompt, window), min(output, window))
        except (RateLimited, QuotaExceeded):
            if earlier := await self._turns.known(turn):  # it has its place already
                return await self._attached(turn, earlier), False
            raise
        if turn.watcher:
            self._hub.expect(response.id)
        try:
            begun = await self._turns.begin(turn, queue_bound=self._settings.queue_bound)
        except BaseException as error:
            self._hub.forget(response.id)
            # away or cut off, it may have begun all the same: then the hold is looked at when it is overdue
            if isinstance(error, ChatServerError) and not isinstance(error, Unavailable):
                await payer.release(all_of_it)
            raise
        if begun.fresh:
            return response, True
        self._hub.forget(response.id)
        await payer.release(all_of_it)
        return await self._attached(turn, begun.response_id), False

    async def _attached(self, turn: NewTurn, earlier: str) -> Response:
        """Return the response that an idempotency key began earlier. Raises Conflict if nothing of it is left."""
        try:
            return await self._spots.told(await self._turns.get(turn.response.tenant, earlier))
        except NotFound:
            raise Conflict(
                f"This idempotency key began {earlier}, which has ended and is not kept; use a new key.",
                code="idempotency_key_spent",
            ) from None


def _params(ask: CreateResponse, spot: Spot, model: ServedModel) -> Params:
    if spot.params is None:
        return with_defaults(ask.params, model, spot.inline)
    if model.name != spot.params.model:
        raise BadRequest(
            f"model: expected {spot.params.model}, whose answer goes on, got {model.name}", param="model"
        )
    return replace(
        spot.params,
        max_output_tokens=ask.params.max_output_tokens or spot.params.max_output_tokens,
        metadata=ask.params.metadata,
        echo=ask.params.echo,
    )


def _pick_shard(tenant: str, key: str | None) -> int:
    """An idempotency key must always look in the same shard; all else is spread."""
    return random.randrange(SHARDS) if key is None else shard_for(f"{tenant}\n{key}")


def _several(kind: str, shard: int, count: int) -> tuple[str, ...]:
    return tuple(fresh_id(kind, shard) for _ in range(count - 1))


def _sibling(first: Response, number: int) -> Response:
    """Return the response beside `first` with that number. A seed is counted on: else both would write the same."""
    params = first.params
    identifier = first.siblings[number]
    return replace(
        first,
        id=identifier,
        params=params if params.seed is None else replace(params, seed=_next_seed(params.seed, number + 1)),
        parent=first.inputs[-1] if first.inputs else first.parent,
        inputs=(),
        siblings=(),
        beside=first.id,
        item_id=fresh_id("msg", shard_of(identifier) or 0),
    )


def _next_seed(seed: int, step: int) -> int:
    """Return a seed `step` further, within 64 signed bits."""
    return (seed + step + 2**63) % 2**64 - 2**63
