"""An engine that notes what it was asked: what could have been reused, what was, what idle work was of use."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from chatserver.service.engine.encoder import Encoder
from chatserver.service.engine.published import Published
from engine.contract import Engine, GenerateRequest, Shown, Tokenizer


@dataclass(slots=True)
class Made:
    """One idle prefill."""

    ids: array
    computed: int
    used: bool = False


class Recording:
    """Passes everything on. `reusable`, `cached`, `prompt`: sums over all generated prompts, in tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._published = Published(1 << 40, engine.card.page)
        self.start_over()

    def start_over(self) -> None:
        """Forget the figures, as for a new arm; what the engine has cached stays."""
        self.reusable = self.cached = self.prompt = 0
        self.made: list[Made] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    async def generate(self, request: GenerateRequest):
        """Note the prompt; publish it with its answer at the end."""
        could = min(self._published.warm(request.salt, "all", request.ids), len(request.ids) - 1)
        answer: list[int] = []
        cached = 0
        sent = array("I", request.ids)
        for made in self.made:
            made.used = made.used or sent[: len(made.ids)] == made.ids
        try:
            async for chunk in self._engine.generate(request):
                answer.extend(chunk.ids)
                cached = chunk.cached
                yield chunk
        finally:
            self.prompt += len(request.ids)
            self.reusable += could - could % self._engine.card.page
            self.cached += cached
            # under a name of its own each, so that none pushes another out
            self._publish(request.salt, (*request.ids, *answer[:-1]))

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Note an idle prefill."""
        cached = await self._engine.prefill(request_id, ids, salt)
        self.made.append(Made(array("I", ids), max(0, len(ids) - cached)))
        self._publish(salt, ids)
        return cached

    async def release(self, ids: Sequence[int], keep: int = 0, salt: str = "") -> int:
        """Pass it on."""
        return await self._engine.release(ids, keep, salt)

    @property
    def wasted(self) -> int:
        """Tokens that idle work computed and that no later prompt began with."""
        return sum(made.computed for made in self.made if not made.used)

    def _publish(self, salt: str, ids: Sequence[int]) -> None:
        number = len(self._published._known)
        self._published.add(salt, f"{number}", ids)


def think(encoder: Encoder, tokenizer: Tokenizer) -> None:
    """Have later prompts show only the second half of each answer, as a template does that drops reasoning."""
    assert hasattr(encoder, "shown"), "answers are shown to later prompts by another name now"

    async def shown(emitted: Sequence[int]) -> Shown:
        half = len(emitted) // 2
        kept = tuple(emitted[half:])
        return Shown((*tokenizer.cue(), *kept, *tokenizer.tail(kept)), half)

    encoder.shown = shown
