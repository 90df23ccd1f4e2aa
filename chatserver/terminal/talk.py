"""The chat itself: one conversation at a time, and what is done in it. Knows no terminal."""

from __future__ import annotations

from chatserver.client import (
    Answer,
    Client,
    ClientError,
    Conversation,
    Event,
    Finished,
    Gone,
    Interrupted,
    Item,
    ItemAdded,
    ItemDone,
    Lost,
    Queued,
    QueuePlace,
    ReasoningDelta,
    Result,
    Started,
    TextDelta,
)
from chatserver.terminal.memory import Memory
from chatserver.terminal.screens import Screen
from chatserver.terminal.words import in_full, in_short

LISTED = 10
"""Conversations in the list of `/resume`."""
SHOWN = 2
"""Items that are shown when a conversation is gone on with."""


class Talk:
    """One user's talk with one server. Methods raise ClientError; `failed` says whether the last answer did."""

    def __init__(self, client: Client, screen: Screen, memory: Memory, url: str, model: str | None) -> None:
        self.conversation: str | None = None
        self.failed = False
        self._client = client
        self._screen = screen
        self._memory = memory
        self._url = url
        self._model = model
        self._result: Result | None = None
        self._listed: list[Conversation] = []

    def say(self, message: str) -> Answer:
        """Return the answer to a message; `show` reads it."""
        return self._client.send(message, conversation=self.conversation, model=self._model)

    async def again(self) -> Answer | None:
        """Return another answer to the last message, None if there is no message."""
        if self.conversation is not None:
            for item in reversed(await self._client.items(self.conversation)):
                if item.role == "user":
                    place = {"id": self.conversation, "parent": item.id}
                    return self._client.send(None, conversation=place, model=self._model)
        self._screen.note("There is no message yet that could be answered again.")
        return None

    async def show(self, answer: Answer) -> None:
        """Read an answer to its end and show it as it comes."""
        self._screen.begin()
        self._screen.status("waiting for the server")
        note = "(left; it goes on without this terminal: /resume brings it back)"
        self.failed = True
        try:
            async with answer:
                self._keep(answer.conversation_id)
                async for event in answer:
                    self._show(event)
            assert answer.result is not None
            self._result = answer.result
            self._keep(answer.conversation_id)
            self.failed = answer.result.error is not None
            note = _note(answer.result)
        except ClientError:
            note = ""  # the caller says what happened
            raise
        finally:
            self._screen.end(note)
        if answer.result.error is not None:
            self._screen.error(answer.result.error[1])

    def new(self) -> None:
        """Begin a new conversation with the next message."""
        self.conversation, self._result = None, None
        self._memory.remember(self._url, None)
        self._screen.note("A new conversation.")

    async def resume(self, conversation_id: str) -> Answer | None:
        """Go on with a conversation; return the answer that is being written in it, if one is."""
        found = await self._client.conversation(conversation_id)
        self._result = None
        self._keep(found.id)
        await self.history(SHOWN)
        return self._client.resume(found.active) if found.active else None

    async def resume_last(self) -> Answer | None:
        """Go on with the conversation that is remembered, if it still exists."""
        last = self._memory.last(self._url)
        if last is None:
            return None
        try:
            return await self.resume(last)
        except Gone:
            self._memory.remember(self._url, None)
            self._screen.note("The last conversation does not exist any more; this is a new one.")
            return None

    async def conversation_named(self, word: str) -> str | None:
        """Return the id for `/resume WORD`: a number of the list, or an id; without a word, show the list."""
        if word.isdigit() and self._listed and 1 <= int(word[:4]) <= len(self._listed):
            return self._listed[int(word[:4]) - 1].id
        if word and not word.isdigit():
            return word
        self._listed = await self._client.conversations(LISTED)
        for number, found in enumerate(self._listed, start=1):
            mark = "  (an answer is being written)" if found.active else ""
            self._screen.note(f"{number:>3}  {found.title or found.id}{mark}")
        self._screen.note("Go on with one of them: /resume NUMBER" if self._listed else "There are none yet.")
        return None

    async def history(self, last: int = 100) -> None:
        """Show the last items of the conversation."""
        items = await self._client.items(self.conversation, last) if self.conversation else []
        for item in items:
            self._tell(item)
        if not items:
            self._screen.note("Nothing has been said yet.")

    def _tell(self, item: Item) -> None:
        """Show an item of the history."""
        if item.role == "user":
            self._screen.said(item.text)
        elif item.type == "function_call":
            self._screen.call(str(item.raw.get("name")), str(item.raw.get("arguments")))
        elif item.role == "assistant":
            self._screen.begin()
            self._screen.write(item.text)
            self._screen.end()

    async def stats(self) -> None:
        """Show how the last answer came about."""
        result = self._result or await self._last_result()
        self._screen.note(in_full(result) if result else "There is no answer yet.")

    async def _last_result(self) -> Result | None:
        items = await self._client.items(self.conversation) if self.conversation else []
        made_by = (item.raw.get("response_id") for item in reversed(items) if item.role == "assistant")
        response_id = next(filter(None, made_by), None)
        return await self._client.response(response_id) if response_id else None

    def _keep(self, conversation_id: str | None) -> None:
        self.conversation = conversation_id or self.conversation
        if self.conversation is not None:
            self._memory.remember(self._url, self.conversation)

    def _show(self, event: Event) -> None:
        match event:
            case TextDelta(text=text):
                self._screen.write(text)
            case ReasoningDelta(text=text):
                self._screen.think(text)
            case ItemAdded(item={"type": "function_call", "name": str(name)}):
                self._screen.status(f"calling {name}")
            case ItemDone(item={"type": "function_call", "name": str(name), "arguments": str(arguments)}):
                self._screen.call(name, arguments)
            case Queued():
                self._screen.status("waiting in the queue")
            case QueuePlace(place=place):
                self._screen.status(f"waiting in the queue, place {place}")
            case Started():
                self._screen.status("reading what was said")
            case Interrupted():
                self._screen.status("the engine was lost; another one goes on with the answer")
            case Lost(reason=reason, wait=wait):
                self._screen.status(f"connection lost ({reason}); again in {wait:.1f} s")
            case Finished() | _:
                pass


def _note(result: Result) -> str:
    ends = {"cancelled": "stopped · ", "incomplete": "cut off at its bound · "}
    return ends.get(result.status, "") + in_short(result)
