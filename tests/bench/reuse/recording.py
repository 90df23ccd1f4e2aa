"""An engine that notes what it was asked: what could have been reused, what was, what idle work was of use.

one idle prefill    ├── there already ──┤├─ computed, taken ─┤├─ computed, wasted ─┤
a later prompt      ├───────────── from the cache ───────────┤├─ its own ─ …
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from chatserver.service.engine.encoder import Encoder
from chatserver.service.engine.published import _common
from engine.contract import Engine, GenerateRequest
from engine.token_contract import Shown, Tokenizer

Tree = dict[int, "Tree"]
"""Token ids that followed each other."""


@dataclass(slots=True)
class Made:
    """One idle prefill: it computed the tokens of `ids` from `start` on; prompts took those before `taken`."""

    salt: str
    ids: array
    start: int
    taken: int = 0

    @property
    def wasted(self) -> int:
        """Tokens that were computed and that no prompt has taken from the cache."""
        return len(self.ids) - max(self.start, self.taken)


class Recording:
    """Passes everything on. `reusable`, `cached`, `prompt`: sums over all generated prompts, in tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._published: dict[str, Tree] = {}
        self._aborted: set[str] = set()
        self.start_over()

    def start_over(self) -> None:
        """Forget the figures, as for a new arm; what the engine has cached stays."""
        self.reusable = self.cached = self.prompt = 0
        self.made: list[Made] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    async def generate(self, request: GenerateRequest):
        """Note the prompt; publish it with its answer at the end."""
        could = min(_walk(self._published.get(request.salt, {}), request.ids), len(request.ids) - 1)
        answer: list[int] = []
        cached = 0
        try:
            async for chunk in self._engine.generate(request):
                answer.extend(chunk.ids)
                cached = chunk.cached
                yield chunk
        finally:
            self.prompt += len(request.ids)
            self.reusable += could - could % self._engine.card.page
            self.cached += cached
            self._take(request, cached)
            self._publish(request.salt, (*request.ids, *answer[:-1]))

    async def prefill(self, request_id: str, ids: Sequence[int], salt: str = "") -> int:
        """Note an idle prefill, but one that was dropped: whether it computed anything nobody knows."""
        cached = await self._engine.prefill(request_id, ids, salt)
        if request_id not in self._aborted:
            self.made.append(Made(salt, array("I", ids), min(cached, len(ids))))
            self._publish(salt, ids)
        return cached

    async def abort(self, request_id: str) -> None:
        """Note it, and pass it on."""
        self._aborted.add(request_id)
        await self._engine.abort(request_id)

    async def release(self, ids: Sequence[int], keep: int = 0, salt: str = "") -> int:
        """Pass it on."""
        return await self._engine.release(ids, keep, salt)

    @property
    def idle(self) -> int:
        """Tokens that idle work computed."""
        return sum(len(made.ids) - made.start for made in self.made)

    @property
    def wasted(self) -> int:
        """Tokens that idle work computed and that no later prompt took, what a conversation's end left over too."""
        return sum(made.wasted for made in self.made)

    def _take(self, request: GenerateRequest, cached: int) -> None:
        sent = array("I", request.ids)
        for made in self.made:
            if made.salt == request.salt:
                made.taken = max(made.taken, min(cached, _common(made.ids, sent)))

    def _publish(self, salt: str, ids: Sequence[int]) -> None:
        at = self._published.setdefault(salt, {})
        for token in ids:
            at = at.setdefault(token, {})


def _walk(tree: Tree, ids: Sequence[int]) -> int:
    """Return how many of the first ids were published: all of them are looked at, as nothing is ever evicted here."""
    for count, token in enumerate(ids):
        if (found := tree.get(token)) is None:
            return count
        tree = found
    return len(ids)


def think(encoder: Encoder, tokenizer: Tokenizer) -> None:
    """Have later prompts show only the second half of each answer, as a template does that drops reasoning."""
    assert hasattr(encoder, "shown"), "answers are shown to later prompts by another name now"

    async def shown(emitted: Sequence[int], *_: object) -> Shown:
        half = len(emitted) // 2
        kept = tuple(emitted[half:])
        return Shown((*tokenizer.cue(), *kept, *tokenizer.tail(kept)), half)

    encoder.shown = shown
