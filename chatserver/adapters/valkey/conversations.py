"""Conversations and their items (port `Conversations`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatserver.adapters.valkey import bills, codec, keys, packing
from chatserver.adapters.valkey.client import Client
from chatserver.adapters.valkey.connect import Reply
from chatserver.adapters.valkey.listing import Listing, decoded
from chatserver.adapters.valkey.refusals import refused
from chatserver.adapters.valkey.scripts import Argument, Command, script
from chatserver.domain.item import Conversation, Item, StoredItem
from chatserver.domain.response import Response
from chatserver.errors import NotFound
from chatserver.ports.conversations import MAX_BRANCH

BRANCH_STEP = 1000
"""Items that are read at a time: 2 ms of the server's time, and 3 of ours."""
DELETE_STEP = 200
"""Responses that one call of the delete script removes."""

# `list` is a method below
Page = list[Conversation]
Branch = list[StoredItem]
Path = list[str]
Items = list[Item]
Arguments = list[Argument]


class ValkeyConversations:
    """Durable trees of items. Every step is one script; a step whose answer was lost is sent again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listing = Listing(client)

    async def create(
        self,
        conversation: Conversation,
        items: Sequence[Item] = (),
        encoded: Mapping[str, StoredItem] | None = None,
    ) -> None:
        """See `Conversations.create`. Raises Conflict if the id is taken, or past MAX_BRANCH items."""
        key = keys.conversation(conversation.id)
        fields = codec.encode_conversation(conversation)
        packed = [
            part
            for item_id, stored in (encoded or {}).items()
            for part in (item_id, packing.encode_ids(stored.ids or (), stored.template_hash, stored.emitted))
        ]
        command = script("create").command(
            (key.fields, key.items, key.up, keys.index(key.shard, conversation.tenant), key.ids),
            *(conversation.tenant, conversation.id, conversation.updated_at or conversation.created_at),
            *(MAX_BRANCH, len(fields) // 2, len(packed) // 2, *fields, *packed, *encoded_pairs(items)),
        )
        _done(await self._client.run(key.shard, command), conversation.id)

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """See `Conversations.get`."""
        key = keys.conversation(conversation_id)
        flat = await self._client.run(key.shard, ("HGETALL", key.fields))
        found = decoded(conversation_id, flat)
        if found is None or found.tenant != tenant:
            raise keys.no_conversation(conversation_id)
        return found

    async def update(
        self,
        tenant: str,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: dict[str, str] | None = None,
        now: int,
    ) -> Conversation:
        """See `Conversations.update`."""
        changes: Arguments = []
        if title is not None:
            changes += ["title", title]
        if metadata is not None:
            changes += ["metadata", packing.pack(metadata)]
        key = keys.conversation(conversation_id)
        command = script("update").command(
            (key.fields, keys.index(key.shard, tenant)), tenant, conversation_id, now, *changes
        )
        (flat,) = _done(await self._client.run(key.shard, command), conversation_id)
        return codec.decode_conversation(conversation_id, flat)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """See `Conversations.delete`. In bounded steps; if it is cut off, delete again."""
        key = keys.conversation(conversation_id)
        command = script("delete_conversation").command(
            (
                key.fields,
                key.items,
                key.up,
                key.ids,
                key.running,
                key.responses,
                keys.index(key.shard, tenant),
            ),
            *(tenant, conversation_id, keys.queue(key.shard).responses, DELETE_STEP),
        )
        state = b"more"
        while state == b"more":
            reply = await self._client.run(key.shard, command, again=False)
            _done(reply, conversation_id)
            state = reply[0]

    async def list(
        self, tenant: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> Page:
        """See `Conversations.list`. At most MAX_PAGE; raises NotFound if `after` is unknown."""
        return await self._listing.page(tenant, limit, after, newest_first)

    async def append(
        self, tenant: str, conversation_id: str, items: Sequence[Item], now: int
    ) -> Conversation:
        """See `Conversations.append`. The items' own `parent` is not looked at: the head is."""
        if not items:
            return await self.get(tenant, conversation_id)
        key = keys.conversation(conversation_id)
        command = script("append_items").command(
            (key.fields, key.items, key.up, key.running, keys.index(key.shard, tenant)),
            *(tenant, conversation_id, now, MAX_BRANCH, *encoded_pairs(items)),
        )
        (flat,) = _done(await self._client.run(key.shard, command), conversation_id)
        return codec.decode_conversation(conversation_id, flat)

    async def branch(self, tenant: str, conversation_id: str, leaf: str | None, *, with_ids: bool) -> Branch:
        """See `Conversations.branch`."""
        key = keys.conversation(conversation_id)
        fields = (key.items, key.ids) if with_ids else (key.items,)
        upwards: Branch = []
        (reply,) = await self._client.pipeline([(key.shard, _walk(key, tenant, leaf or ""))])
        while True:
            above, path = _done(reply, conversation_id)
            if not path:
                break
            commands: list[Command] = [("HMGET", field, *path) for field in fields]
            commands.append(_walk(key, tenant, above))  # the next step up travels with this one's items
            *found, reply = await self._client.pipeline([(key.shard, command) for command in commands])
            upwards += _stored(conversation_id, [*path, above], *found)
        upwards.reverse()
        return upwards

    async def path(self, tenant: str, conversation_id: str, leaf: str | None) -> Path:
        """See `Conversations.path`."""
        key = keys.conversation(conversation_id)
        upwards: list[bytes] = []
        above: bytes | str = leaf or ""
        while True:
            above, found = _done(
                await self._client.run(key.shard, _walk(key, tenant, above)), conversation_id
            )
            upwards += found
            if not above:
                return [name.decode() for name in reversed(upwards)]

    async def all_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None
    ) -> Items:
        """See `Conversations.all_items`."""
        key = keys.conversation(conversation_id)
        commands: list[Command] = [("HGET", key.fields, "tenant"), ("HGETALL", key.up)]
        owner, flat = await self._client.pipeline([(key.shard, command) for command in commands])
        if owner != tenant.encode():
            raise keys.no_conversation(conversation_id)
        links = [(*link.split(b" ", 1), name) for name, link in zip(flat[::2], flat[1::2], strict=True)]
        links.sort(key=lambda link: (int(link[0]), link[2]))
        names = [name for _, _, name in links]
        start = 0
        if after is not None:
            if after.encode() not in names:
                raise NotFound("the item to continue from is not in this conversation", param="after")
            start = names.index(after.encode()) + 1
        chosen = links[start : start + limit]
        if not chosen:
            return []
        stored = await self._client.run(key.shard, ("HMGET", key.items, *(name for _, _, name in chosen)))
        # each one alone: its parent is not the next one, as it is on a branch
        return [
            codec.decode_items([item], [name.decode(), parent.decode()])[0]
            for item, (_, parent, name) in zip(stored, chosen, strict=True)
            if item is not None
        ]

    async def links(self, tenant: str, conversation_id: str, *, unless: int = 0) -> dict[str, str | None]:
        """See `Conversations.links`."""
        key = keys.conversation(conversation_id)
        commands: list[Command] = [("HGET", key.fields, "tenant"), ("HLEN", key.up)]
        owner, count = await self._client.pipeline([(key.shard, command) for command in commands])
        if owner != tenant.encode():
            raise keys.no_conversation(conversation_id)
        if count == unless:
            return {}
        flat = await self._client.run(key.shard, ("HGETALL", key.up))
        return {
            name.decode(): link.split(b" ", 1)[1].decode() or None
            for name, link in zip(flat[::2], flat[1::2], strict=True)
        }

    async def some(
        self, tenant: str, conversation_id: str, item_ids: Sequence[str]
    ) -> list[StoredItem | None]:  # type: ignore[valid-type]
        """See `Conversations.some`."""
        key = keys.conversation(conversation_id)
        commands: list[Command] = [("HGET", key.fields, "tenant")]
        if item_ids:
            commands += [("HMGET", field, *item_ids) for field in (key.up, key.items, key.ids)]
        owner, *found = await self._client.pipeline([(key.shard, command) for command in commands])
        if owner != tenant.encode():
            raise keys.no_conversation(conversation_id)
        return [
            _stored(conversation_id, [name.encode(), link.split(b" ", 1)[1]], [item], [ids])[0]
            if link is not None and item is not None
            else None
            for name, link, item, ids in zip(item_ids, *(found or ((), (), ())), strict=True)
        ]

    async def place(
        self,
        tenant: str,
        conversation_id: str,
        item: Item,
        ids: Sequence[int],
        template_hash: str,
        *,
        payer: Response | None = None,
    ) -> None:
        """See `Conversations.place`."""
        key = keys.conversation(conversation_id)
        command = script("place_item").command(
            (key.fields, key.items, key.up, key.ids, keys.due(key.shard)),
            *(
                tenant,
                item.id,
                codec.encode_item(item),
                item.parent or "",
                packing.encode_ids(ids, template_hash),
                bills.of_item(payer, item) if payer else b"",
            ),
        )
        _done(await self._client.run(key.shard, command), conversation_id)

    async def remove(self, tenant: str, conversation_id: str, item_id: str, now: int) -> Conversation:
        """See `Conversations.remove`."""
        key = keys.conversation(conversation_id)
        command = script("delete_item").command(
            (key.fields, key.items, key.up, key.ids, key.running, keys.index(key.shard, tenant)),
            *(tenant, conversation_id, item_id, now),
        )
        (flat,) = _done(await self._client.run(key.shard, command, again=False), conversation_id)
        return codec.decode_conversation(conversation_id, flat)


def encoded_pairs(items: Sequence[Item]) -> list[Argument]:
    """Return items as id, item, id, item."""
    return [part for item in items for part in (item.id, codec.encode_item(item))]


def _done(reply: Reply, conversation_id: str) -> Reply:
    """Return what follows a script's first word. Raises the error that the word stands for."""
    state, *rest = reply
    error = refused(state, keys.no_conversation(conversation_id))
    if error is not None:
        raise error
    return rest


def _walk(key: keys.ConversationKeys, tenant: str, at: Argument) -> Command:
    return script("branch").command((key.fields, key.up), tenant, at, BRANCH_STEP)


def _stored(
    conversation_id: str, names: list[bytes], items: list[bytes], packed: Sequence[bytes | None] = ()
) -> Branch:
    """Return one step of a branch, from the leaf up; the last name is the item above it, or empty.

    Raises NotFound if a refused turn took items back, or the conversation was deleted, between the steps.
    """
    if None in items:
        raise keys.no_conversation(conversation_id)
    found = codec.decode_items(items, [name.decode() for name in names])
    if not packed:
        return [StoredItem(item) for item in found]
    return [
        StoredItem(item) if ids is None else StoredItem(item, *packing.decode_ids(ids))
        for item, ids in zip(found, packed, strict=True)
    ]
