"""Trees against a model: any order of asking, regenerating, editing, going on, forking and deleting loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chatserver.adapters.valkey import ValkeyStore
from chatserver.adapters.valkey.client import connect
from chatserver.domain.ids import SHARDS
from chatserver.domain.item import Item, ItemStatus, Role
from chatserver.domain.response import Response
from chatserver.errors import BadRequest, NotFound
from chatserver.wire.commands import Page
from chatserver.wire.responses import parse
from tests.chatserver.service.engine.test_going_on import web_of
from tests.chatserver.service.engine_role import TENANT, ended, scripted, worker

T = TypeVar("T")
ASK = {"temperature": 0, "max_output_tokens": 3, "ignore_eos": True, "truncation": "auto"}
words = st.sampled_from(["Yes", "no", "Why?", "Ä 世 🙂", "x " * 30])
picks = st.integers(0, 10**6)


@dataclass
class Tree:
    """What the model knows of a conversation. Nothing in `items` ever changes; only `delete` takes some away."""

    id: str
    head: str | None = None
    items: dict[str, Item] = field(default_factory=dict)

    def under(self, item_id: str) -> set[str]:
        """An item and all below it."""
        found = {item_id}
        while more := {i.id for i in self.items.values() if i.parent in found} - found:
            found |= more
        return found


class Trees(RuleBasedStateMachine):
    """A web role, an engine role with the scripted engine, a real store."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.trees: list[Tree] = []
        self.responses: list[Response] = []
        self.run(self._open())

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    async def _open(self) -> None:
        client = await connect(self.url)
        await client.pipeline([(shard, ("FLUSHALL",)) for shard in range(SHARDS)])
        self.store = ValkeyStore(client)
        self.engine = scripted(tokens_per_second=5000.0, ttft_ms=0.0)
        self.role = worker(self.store, await self.engine.__aenter__())
        await self.role.__aenter__()
        while not await self.store.registry.models():
            await asyncio.sleep(0.002)
        self.chat = web_of(self.store)

    def teardown(self) -> None:
        async def close() -> None:
            await self.role.__aexit__(None, None, None)
            await self.engine.__aexit__(None, None, None)
            await self.store.close()

        self.run(close())
        self.runner.close()

    def ask(self, **body: Any) -> Response:
        """Begin a response, wait for its end and its siblings', and note what must be there now."""

        async def go() -> list[Response]:
            first, _ = await self.chat.respond(TENANT, parse(body), watch=False)
            return [await ended(self.store, one) for one in (first.id, *first.siblings)]

        found = self.run(go())
        first = found[0]
        tree = next((t for t in self.trees if t.id == first.conversation), None)
        if tree is None:
            tree = Tree(first.conversation or "")
            self.trees.append(tree)
        above = first.parent
        inputs = body.get("input") or []
        for item_id, text in zip(first.inputs, [inputs] if isinstance(inputs, str) else inputs, strict=True):
            tree.items[item_id] = Item(item_id, above, Role.USER, text)
            above = item_id
        for response in found:
            item = response.outcome.item
            assert item is not None and item.parent == above, response
            tree.items[item.id] = item
        tree.head = first.outcome.item.id
        self.responses += found
        return first

    def pick(self, number: int, *, role: Role | None = None) -> tuple[Tree, Item] | None:
        found = [(t, i) for t in self.trees for i in t.items.values() if role in (None, i.role)]
        return found[number % len(found)] if found else None

    @rule(text=words)
    def start(self, text: str) -> None:
        self.ask(input=text, **ASK)

    @precondition(lambda self: any(tree.head for tree in self.trees))
    @rule(text=words, number=picks, count=st.sampled_from([1, 1, 1, 3]))
    def append(self, text: str, number: int, count: int) -> None:
        trees = [tree for tree in self.trees if tree.head]
        tree = trees[number % len(trees)]
        answer = self.ask(input=text, conversation=tree.id, n=count, **ASK)
        assert tree.items[answer.inputs[0]].parent in tree.items

    @precondition(lambda self: self.responses)
    @rule(text=words, number=picks)
    def stale(self, text: str, number: int) -> None:
        """Continue after any answer there ever was, as a tab does that slept."""
        before = self.responses[number % len(self.responses)]
        if any(before.outcome.item.id in tree.items for tree in self.trees if tree.id == before.conversation):
            answer = self.ask(input=text, previous_response_id=before.id, **ASK)
            assert answer.parent == before.outcome.item.id
        else:
            with pytest.raises(NotFound):
                self.ask(input=text, previous_response_id=before.id, **ASK)

    @rule(number=picks)
    def regenerate(self, number: int) -> None:
        if found := self.pick(number, role=Role.USER):
            tree, question = found
            self.ask(conversation={"id": tree.id, "parent": question.id}, **ASK)

    @rule(text=words, number=picks)
    def edit(self, text: str, number: int) -> None:
        if found := self.pick(number, role=Role.USER):
            tree, question = found
            self.ask(input=text, conversation={"id": tree.id, "parent": question.parent}, **ASK)

    @precondition(lambda self: self.responses)
    @rule(number=picks)
    def go_on(self, number: int) -> None:
        before = self.responses[number % len(self.responses)]
        item = before.outcome.item
        there = any(item.id in tree.items for tree in self.trees if tree.id == before.conversation)
        if not there or item.status is not ItemStatus.INCOMPLETE:
            with pytest.raises((NotFound, BadRequest)):
                self.ask(**{"continue": before.id})
            return
        answer = self.ask(**{"continue": before.id})
        assert answer.outcome.item.text.startswith(item.text) and answer.outcome.item.id != item.id

    @rule(number=picks)
    def delete(self, number: int) -> None:
        if not (found := self.pick(number)):
            return
        tree, item = found
        gone = tree.under(item.id)
        self.run(self.chat.tree.remove(TENANT, tree.id, item.id))
        if tree.head in gone:
            tree.head = item.parent
        tree.items = {name: kept for name, kept in tree.items.items() if name not in gone}

    @precondition(lambda self: len(self.trees) < 6)
    @rule(number=picks)
    def fork(self, number: int) -> None:
        if not (found := self.pick(number)):
            return
        tree, item = found
        copy = self.run(self.chat.tree.fork(TENANT, tree.id, item.id, None))
        path, at = {}, item
        while at is not None:
            path[at.id] = at
            at = tree.items[at.parent] if at.parent else None
        self.trees.append(Tree(copy.id, item.id, path))

    @invariant()
    def nothing_is_lost_or_changed(self) -> None:
        async def look(tree: Tree) -> tuple[list[Item], str | None]:
            items = await self.chat.tree.all(TENANT, tree.id, Page(500))
            assert len(items) <= 500
            conversation = await self.chat.conversation(TENANT, tree.id)
            assert conversation.active is None
            return items, conversation.head

        for tree in self.trees:
            items, head = self.run(look(tree))
            seen = {i.id: (i.parent, i.role, i.text) for i in items}
            assert seen == {i.id: (i.parent, i.role, i.text) for i in tree.items.values()}
            assert head == tree.head


def test_trees(valkey):
    """No order of steps loses, changes or misplaces an item."""
    Trees.url = valkey.url
    run_state_machine_as_test(
        Trees,
        settings=settings(
            max_examples=60,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
