"""Which model a request means."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from chatserver.domain.item import Message
from chatserver.domain.response import Params
from chatserver.errors import ModelNotFound, Unavailable
from chatserver.ports.registry import Registry, ServedModel
from chatserver.service.web.once import Once

FRESH = 2.0
"""Seconds for which the list of models is not read again."""


THINKING = {"deepseek-reasoner": True, "deepseek-chat": False}
"""Names that mean a model with its reasoning on, or off, as at DeepSeek's API, where the model has a switch for it."""


def with_defaults(params: Params, model: ServedModel, messages: tuple[Message, ...] = ()) -> Params:
    """Return the parameters with the model's name; where the request says nothing, its makers' sampling.

    With or without reasoning is as the request says, else as the name that it gave the model means, else the model's.
    `messages`: the whole prompt of a stateless answer.
    """
    meant = THINKING.get(params.model.casefold()) if model.thinking_switch else None
    return replace(
        params,
        model=model.name,
        messages=messages,
        thinking=meant if params.thinking is None else params.thinking,
        temperature=model.temperature if params.temperature is None else params.temperature,
        top_p=model.top_p if params.top_p is None else params.top_p,
        top_k=model.top_k if params.top_k is None else params.top_k,
    )


class Models:
    """The models that engines have announced, also while their engine restarts."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._read = Once(self._look)
        self._known: list[ServedModel] = []
        self._read_at = float("-inf")

    async def all(self) -> list[ServedModel]:
        """Return every model. Raises Unavailable."""
        if not self._known or self._clock() - self._read_at > FRESH:
            await self._read()
        return self._known

    async def resolve(self, name: str) -> ServedModel:
        """Return the model of a name or alias, in any case; "" means the first one.

        Raises ModelNotFound, which lists what is served, and Unavailable while nothing was ever announced.
        """
        models = await self.all()
        if not models:
            raise Unavailable(
                "No engine has announced a model yet: the model is still being loaded, see /readyz.",
                code="model_loading",
                retry_after=5.0,
            )
        if not name:
            return models[0]
        wanted = name.casefold()
        for model in models:
            if wanted == model.name.casefold() or wanted in (alias.casefold() for alias in model.aliases):
                return model
        served = ", ".join(f"{m.name} (also {', '.join(m.aliases)})" if m.aliases else m.name for m in models)
        raise ModelNotFound(
            f"The model {name[:80]!r} is not served here; served are: {served}.", param="model"
        )

    async def _look(self) -> None:
        # While an engine restarts, what it announced before stands; what nobody runs any more does not.
        live = {e.model.name: e.model for e in await self._registry.engines() if e.model}
        self._known = list(live.values()) or await self._registry.models()
        self._read_at = self._clock()
