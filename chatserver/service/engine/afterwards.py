"""What a turn leaves to the next: what that begins with, what is made for it in idle time, what is no longer needed.

the answer's end ─> upcoming ─> note_cached ─> stored ─> leave_behind
                    the cut      its prefix               summary wanted,
                    moves        is wanted                old KV freed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chatserver.domain.response import Response
from chatserver.service.engine.compaction import Compactor
from chatserver.service.engine.layout import Ids
from chatserver.service.engine.prefixes import Prefixes
from chatserver.service.engine.prompting import Beginning, Prompt, PromptBuilder, Upcoming
from chatserver.service.engine.wanted import Prefix


class Afterwards:
    """Of one response. `salt`: of its tenant's KV cache."""

    def __init__(
        self,
        prompts: PromptBuilder,
        prefixes: Prefixes,
        compactor: Compactor,
        response: Response,
        salt: str,
    ) -> None:
        self._prompts = prompts
        self._prefixes = prefixes
        self._compactor = compactor
        self._response = response
        self._salt = salt

    def upcoming(self, prompt: Prompt, answer: Ids) -> Upcoming | None:
        """Return what the next turn begins with. Its cut moves now, if it may have to."""
        response = self._response
        if response.conversation is None:
            return None
        return self._prompts.upcoming(prompt, response.params, response.item_id, answer)

    def note_cached(self, prompt: Prompt, emitted: Sequence[int], upcoming: Upcoming | None) -> None:
        """Say what the cache holds, and have the next turns' prefix made if it is another one.

        Before the end is stored: who sees the end may ask at once what is warm, or have all of it freed.
        """
        response, prefixes = self._response, self._prefixes
        # the last token's KV is computed only when something follows it
        computed = (*prompt.ids, *emitted[:-1])
        prefixes.computed(self._salt, response.conversation, computed, prompt.ledger.cut, response.item_id)
        if response.conversation is None or upcoming is None:
            return
        ahead = self._prefix(response.conversation, upcoming.ahead) if upcoming.ahead else None
        # a cut that moved, or a template that shows what was emitted in another form from now on
        if upcoming.ids[: len(computed)] != computed:
            prefixes.want(replace(self._prefix(response.conversation, upcoming), then=ahead))
        elif ahead:
            prefixes.want(ahead)

    async def leave_behind(self, prompt: Prompt, upcoming: Upcoming | None) -> None:
        """Have what the next turn drops summarised; free what earlier cuts hold."""
        response, layout = self._response, prompt.layout
        if response.conversation is None:
            return
        if upcoming is not None and response.params.compaction:
            wanted = self._prompts.summaries.wanted(response, layout, upcoming.cut)
            if wanted is not None:
                self._compactor.want(wanted)
        needed = {prompt.ledger.cut}
        if upcoming is not None:
            needed |= {beginning.cut for beginning in (upcoming, upcoming.ahead) if beginning}
        await self._prefixes.leave(self._salt, response.conversation, layout.path, needed)

    def _prefix(self, conversation: str, beginning: Beginning) -> Prefix:
        leaf = self._response.item_id
        return Prefix(conversation, self._salt, beginning.ids, beginning.cut, leaf, beginning.turns)
