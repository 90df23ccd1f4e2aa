"""How many tokens a prompt would have: asked of an engine, which has the tokenizer, and plans it as it would a turn."""

from __future__ import annotations

import secrets
from dataclasses import replace

from chatserver.errors import Unavailable
from chatserver.ports.caches import Caches, Count
from chatserver.ports.registry import EngineState, Registry
from chatserver.service.web.models import Models, with_defaults
from chatserver.service.web.places import Spots
from chatserver.service.web.warmth import patiently
from chatserver.wire.commands import CreateResponse
from chatserver.wire.errors import from_failure

PATIENCE = 8.0
"""Seconds for which an engine's answer is waited for: a long input takes it seconds to encode."""


class Counting:
    """Counts without beginning anything."""

    def __init__(self, spots: Spots, models: Models, caches: Caches, registry: Registry) -> None:
        self._spots = spots
        self._models = models
        self._caches = caches
        self._registry = registry

    async def count(self, tenant: str, ask: CreateResponse) -> int:
        """Return the tokens of the prompt that `ask` would send. Raises what asking would, and Unavailable."""
        spot = await self._spots.find(tenant, ask)
        model = await self._models.resolve(ask.params.model or spot.model)
        params = replace(with_defaults(ask.params, model), messages=(*spot.inline, *spot.messages))
        able = [
            engine.engine_id
            for engine in await self._registry.engines()
            if engine.state is EngineState.READY and engine.model and engine.model.name == model.name
        ]
        if not able:
            raise Unavailable(f"No engine is ready that serves {model.name}: see /readyz.", retry_after=2.0)
        command = Count(
            secrets.choice(able),
            tenant,
            params,
            secrets.token_hex(16),
            None if spot.create else spot.conversation,
            spot.parent,
        )
        await self._caches.count(command)
        answers = await patiently(lambda: self._caches.counts(command), 1, PATIENCE)
        if not answers:
            raise Unavailable("No engine has counted the tokens in time.", retry_after=2.0)
        if answers[0].failure is not None:
            raise from_failure(answers[0].failure)
        return answers[0].tokens
