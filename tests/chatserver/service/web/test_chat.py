"""Commands of the web role: where an answer goes, which model it means, and reading it back later."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from chatserver.app.web import chat_on
from chatserver.domain.ids import shard_for, shard_of
from chatserver.domain.item import Message
from chatserver.domain.response import Params
from chatserver.domain.tape import Delta, Ended
from chatserver.errors import (
    BadRequest,
    Conflict,
    ContextTooLong,
    ModelNotFound,
    NotFound,
    Overloaded,
    Unavailable,
)
from chatserver.service.web.hub import Hub
from chatserver.service.web.models import Models
from chatserver.service.web.places import title_of
from chatserver.service.web.replay import Replayed, replay
from chatserver.settings import Settings
from chatserver.wire.commands import CompleteChat, CreateResponse, Page
from tests.fakes import MODEL, FakeEngine, MemoryStore

HELLO = (Message("user", "Hello"),)
ANSWER = "".join(f"w{i} " for i in range(20))


@asynccontextmanager
async def running(*, engine_works: bool = True, **settings):
    store = MemoryStore()
    store.known_models.append(MODEL)
    hub = Hub(store.tapes, store.signals, "web_1")
    await hub.start()
    chat = chat_on(store, hub, Settings(**settings))
    engine = FakeEngine(store)
    if not engine_works:
        engine.go.clear()
    working = asyncio.create_task(engine.run())
    try:
        yield chat, store, engine
    finally:
        working.cancel()
        await engine.close()
        await hub.close()


def ask(text: str = "Hello", **changes) -> CreateResponse:
    return CreateResponse(
        Params(changes.pop("model", "tiny")), (Message("user", text),) if text else (), **changes
    )


async def answer(chat, response, fresh=True):
    reader = await chat.attach(response, fresh=fresh, resumable=True)
    records = await chat.opening(reader)
    while not reader.ended:
        records += await reader.batch()
    await reader.aclose()
    return records


async def done(chat, create):
    response, fresh = await chat.respond("local", create)
    await answer(chat, response, fresh)
    return await chat.response("local", response.id)


async def test_everything_of_a_turn_is_in_one_shard():
    async with running() as (chat, _, _):
        response, _ = await chat.respond("local", ask(), key="k")
        ids = [response.id, response.conversation, response.item_id, *response.inputs]
        assert {shard_of(i) for i in ids} == {shard_for("local\nk")}
        stateless, _ = await chat.complete("local", CompleteChat(Params("tiny"), HELLO), key="k2")
        assert shard_of(stateless.id, "chatcmpl") == shard_for("local\nk2")
        assert stateless.conversation is None and not stateless.stored and stateless.params.messages == HELLO


async def test_head_branch_and_new_conversation():
    async with running() as (chat, store, _):
        first = await done(chat, ask())
        conversation = await chat.conversation("local", first.conversation)
        assert conversation.title == "Hello" and conversation.head == first.item_id
        second = await done(chat, ask("More", conversation=conversation.id))
        assert second.parent == first.item_id
        branch = await done(chat, ask("Else", previous=first.id))
        assert branch.parent == first.item_id and branch.conversation == conversation.id
        third = await done(chat, ask("On", conversation=conversation.id))
        assert third.parent == branch.item_id  # the head is where the newest turn is
        again = await done(chat, ask("", conversation=conversation.id, parent=first.inputs[0]))
        assert again.inputs == () and again.parent == first.inputs[0]
        edited = await done(chat, ask("Hi", conversation=conversation.id, parent=None))
        assert edited.parent is None and len(store.all_conversations) == 1
        assert [i.text for i in await chat.tree.branch("local", conversation.id)] == ["Hi", ANSWER]


async def test_what_cannot_be_continued():
    async with running() as (chat, _, engine):
        conversation = await chat.create_conversation("local", {}, ())
        with pytest.raises(BadRequest, match="empty"):
            await chat.respond("local", ask("", conversation=conversation.id))
        for bad in ("conv_x", "resp_x", "", "conv_00" + "0" * 30, "\x00"):
            with pytest.raises(NotFound):
                await chat.respond("local", ask(conversation=bad))
            with pytest.raises(NotFound):
                await chat.respond("local", ask(previous=bad))
            with pytest.raises(NotFound):
                await chat.stop("local", bad)
            with pytest.raises(NotFound):
                await chat.tree.item("local", conversation.id, bad)
        unkept = await done(chat, ask(store=False))
        with pytest.raises(NotFound, match="store: false"):
            await chat.respond("local", ask(previous=unkept.id))
        refused, _ = await chat.respond("local", ask("REFUSE"))
        with pytest.raises(ContextTooLong):
            await answer(chat, refused)
        with pytest.raises(Conflict, match="first word"):
            await chat.respond("local", ask(previous=refused.id))
        assert await chat.input_items("local", refused.id) == []  # what was refused is taken back
        await engine.rest()
        queued, _ = await chat.respond("local", ask())
        with pytest.raises(Conflict, match="still runs"):
            await chat.respond("local", ask(previous=queued.id))
        await chat.stop("local", queued.id)
        kept = await chat.respond("local", ask(previous=queued.id))  # its question is still there
        assert kept[0].parent == queued.inputs[0]


async def test_tenants_do_not_see_each_other():
    async with running() as (chat, _, _):
        response = await done(chat, ask())
        for foreign in (
            chat.response("other", response.id),
            chat.stop("other", response.id),
            chat.read("other", response.id),
            chat.conversation("other", response.conversation),
            chat.respond("other", ask(previous=response.id)),
            chat.tree.item("other", response.conversation, response.item_id),
        ):
            with pytest.raises(NotFound):
                await foreign
        assert await chat.conversations("other", Page()) == ([], None)


async def test_models_by_name_alias_or_default_and_while_the_engine_is_away():
    async with running(engine_works=False) as (chat, store, _):
        for name in ("tiny", "TINY", "deepseek-chat", ""):
            assert (await chat.respond("local", ask(model=name)))[0].params.model == "tiny"
        with pytest.raises(ModelNotFound, match=r"tiny \(also deepseek-chat\)"):
            await chat.respond("local", ask(model="gpt"))
        await asyncio.sleep(0.01)  # the engine has said that it is there
        store.reports.clear()
        store.known_models.clear()
        fresh = Models(store.registry)
        with pytest.raises(Unavailable) as error:
            await fresh.resolve("tiny")
        assert error.value.retry_after == 5
        store.known_models.append(MODEL)
        assert await fresh.resolve("tiny") is MODEL  # an empty list is not remembered


async def test_models_are_read_once_for_all_who_ask_at_once(monkeypatch):
    async with running(engine_works=False) as (_, store, _):
        await asyncio.sleep(0.01)
        fresh, reads, read = Models(store.registry), [], store.registry.engines

        async def counted():
            reads.append(1)
            await asyncio.sleep(0.01)
            return await read()

        monkeypatch.setattr(store.registry, "engines", counted)
        given_up = asyncio.create_task(fresh.resolve("tiny"))
        await asyncio.sleep(0)
        given_up.cancel()  # whoever asked first is not needed for the others
        assert await asyncio.gather(*(fresh.resolve("tiny") for _ in range(20))) == [MODEL] * 20
        assert len(reads) == 1
        store.down = True
        fresh._read_at = float("-inf")
        failed = await asyncio.gather(*(fresh.resolve("tiny") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in failed] == [Unavailable] * 3


async def test_a_follow_up_keeps_the_model_of_the_previous_response():
    async with running() as (chat, store, _):
        first = await done(chat, ask())
        store.known_models.insert(0, type(MODEL)("newer", (), 10))
        chat.models._read_at = float("-inf")
        assert (await done(chat, ask(previous=first.id, model=""))).params.model == "tiny"


async def test_full_queue_is_refused():
    async with running(engine_works=False, queue_bound=1) as (chat, _, _):
        await asyncio.sleep(0.01)
        await chat.respond("local", ask())
        with pytest.raises(Overloaded):
            await chat.respond("local", ask())


async def test_idempotency_key_attaches_or_conflicts():
    async with running() as (chat, _, engine):
        one, fresh = await chat.respond("local", ask(), key="k", fingerprint="f")
        two, again = await chat.respond("local", ask(), key="k", fingerprint="f")
        assert fresh and not again and one.id == two.id
        assert (await answer(chat, two, again))[0].last == 0
        with pytest.raises(Conflict):
            await chat.respond("local", ask(), key="k", fingerprint="g")
        other, fresh = await chat.respond("other", ask(), key="k", fingerprint="g")
        assert fresh and other.id != one.id
        assert engine.started[0] == one.id


async def test_opening_waits_only_so_long():
    async with running(engine_works=False) as (chat, _, _):
        response, fresh = await chat.respond("local", ask())
        reader = await chat.attach(response, fresh=fresh, resumable=True)
        records = await chat.opening(reader, patience=0.02)
        assert [r.last for r in records] == [0, 1]
        await reader.aclose()


async def test_positions_that_do_not_exist_are_refused():
    async with running() as (chat, _, _):
        response = await done(chat, ask())
        last = 8 + 20
        _, reader = await chat.read("local", response.id, last)
        assert await reader.batch() == [] and reader.ended
        with pytest.raises(BadRequest, match="starting_after"):
            await chat.read("local", response.id, last + 1)


@pytest.mark.parametrize("after", [-1, 0, 1, 2, 4, 5, 17, 24, 25, 26, 27, 28, 40])
async def test_an_expired_tape_is_read_from_the_stored_response(after):
    async with running() as (chat, store, _):
        response = await done(chat, ask())
        real = store.all_tapes.pop(response.id)
        _, reader = await chat.read("local", response.id, after)
        assert isinstance(reader, Replayed)
        records = await reader.batch() if not reader.ended else []
        assert reader.ended and await reader.batch() == []
        assert [r.last for r in replay(response)][-1] == real[-1].last == 28
        if after >= 28:
            assert records == []
            return
        assert isinstance(records[-1].body, Ended) and records[-1].last == 28
        text = "".join(r.body.text for r in records if isinstance(r.body, Delta))
        assert text == (ANSWER if after < 5 else "")


async def test_an_expired_tape_of_a_response_stopped_in_the_queue():
    async with running(engine_works=False) as (chat, store, _):
        response, _ = await chat.respond("local", ask())
        await chat.stop("local", response.id)
        real = store.all_tapes.pop(response.id)
        _, reader = await chat.read("local", response.id)
        assert await reader.batch() == real


async def test_a_deleted_tape_of_a_running_response_is_gone():
    async with running(engine_works=False) as (chat, store, _):
        response, _ = await chat.respond("local", ask())
        del store.all_tapes[response.id]
        with pytest.raises(NotFound):
            await chat.read("local", response.id)


async def test_conversations_are_listed_in_pages():
    async with running() as (chat, _, _):
        made = [await chat.create_conversation("local", {}, ()) for _ in range(5)]
        seen, after = [], None
        while True:
            found, more = await chat.conversations("local", Page(limit=2, after=after))
            seen += [c.id for c in found]
            after = seen[-1]
            if not more:
                break
        assert sorted(seen) == sorted(c.id for c in made)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  \n Two\nlines", "Two"),
        ("", ""),
        ("x" * 100, "x" * 79 + "…"),
        ("안녕하세요", "안녕하세요"),
    ],
)
def test_titles(text, title):
    assert title_of((Message("system", "Be brief"), Message("user", text))) == title


async def test_versions_that_are_begun_within_a_second_stand_in_that_order():
    """Six answers to one question, the clock's second stands still: the last one is the newest."""
    async with running() as (chat, _, _):
        first = await done(chat, ask())
        versions = [first.item_id]
        for _ in range(5):
            again = await done(chat, ask("", conversation=first.conversation, parent=first.inputs[0]))
            versions.append(again.item_id)
        question = await chat.tree.item("local", first.conversation, first.inputs[0])
        found = await chat.tree.siblings("local", first.conversation, [], [question])
        newest = await chat.tree.item("local", first.conversation, versions[-1])
        beside = await chat.tree.siblings("local", first.conversation, [question], [newest])
        assert beside[question.id] == versions
        assert found[None] == [question.id]
