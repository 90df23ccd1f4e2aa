"""The conversations of the fake server: trees of items, which branch is shown, and who is told of changes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]


@dataclass
class Tree:
    """One conversation. `running`: as the API tells it; `bells`: called after each change."""

    id: str = field(default_factory=lambda: "conv_" + secrets.token_hex(8))
    title: str = ""
    head: str | None = None
    items: dict[str, Item] = field(default_factory=dict)
    running: list[dict[str, Any]] = field(default_factory=list)
    updated_at: float = field(default_factory=time.time)
    bells: list[Callable[[], None]] = field(default_factory=list)

    def ring(self) -> None:
        """Tell that something changed."""
        self.updated_at = time.time()
        for bell in list(self.bells):
            bell()

    def add(self, item: Item, parent: str | None, *, head: bool = True) -> Item:
        """Put an item under another; summaries stand beside the branch."""
        item["parent"] = parent
        self.items[item["id"]] = item
        if head:
            self.head = item["id"]
        return item

    def branch(self, leaf: str | None) -> list[Item]:
        """The items from the root to `leaf`. Raises KeyError."""
        found = []
        while leaf is not None:
            found.append(self.items[leaf])
            leaf = self.items[leaf]["parent"]
        return found[::-1]

    def through(self, item_id: str) -> list[Item]:
        """The branch of an item: the head's if it has it, else the one that ends last. Raises KeyError."""
        at_head = self.branch(self.head)
        if any(item["id"] == item_id for item in at_head):
            return at_head
        while below := self.under(item_id):
            item_id = below[-1]
        return self.branch(item_id)

    def under(self, parent: str | None) -> list[str]:
        """The items right under another, oldest first."""
        return [i["id"] for i in self.items.values() if i["parent"] == parent and i["type"] == "message"]

    def listed(self, branch: list[Item]) -> list[Item]:
        """A branch as the API lists it: what stands beside each item, summaries behind what they cover."""
        shown: list[Item] = []
        for item in branch:
            last = {"children": self.under(item["id"])} if item is branch[-1] else {}
            shown.append(item | {"siblings": self.under(item["parent"])} | last)
            shown += [
                i for i in self.items.values() if i["type"] == "compaction" and i["parent"] == item["id"]
            ]
        return shown

    def remove(self, item_id: str) -> None:
        """Remove an item and everything under it. Raises KeyError."""
        parent = self.items[item_id]["parent"]
        on_head = any(item["id"] == item_id for item in self.branch(self.head))
        going = [item_id]
        while going:
            gone = going.pop()
            del self.items[gone]
            going += [i["id"] for i in self.items.values() if i["parent"] == gone]
        if on_head:
            self.head = parent
        self.ring()

    def fork(self, leaf: str | None) -> Tree:
        """A conversation that begins as this one does."""
        copy = Tree(title=self.title)
        for item in self.branch(leaf or self.head):
            copy.add(dict(item), item["parent"])
        return copy

    def told(self) -> dict[str, Any]:
        """The conversation as the API tells it."""
        active = self.running[-1]["response_id"] if self.running else None
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": int(self.updated_at),
            "updated_at": self.updated_at,
            "metadata": {},
            "title": self.title,
            "head": self.head,
            "active": active,
            "running": self.running,
        }


def message(role: str, text: str, response_id: str | None = None) -> Item:
    """A message without a place yet."""
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    item: Item = {"id": "msg_" + secrets.token_hex(8), "type": "message", "role": role, "status": "completed"}
    return item | {"content": [part], "response_id": response_id}


def summary(text: str) -> Item:
    """What stands for messages that are no longer sent."""
    part = {"type": "summary_text", "text": text}
    return {
        "id": "cmp_" + secrets.token_hex(8),
        "type": "compaction",
        "status": "completed",
        "summary": [part],
    }
