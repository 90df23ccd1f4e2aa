"""Stored forms are exact round trips, and refuse what they do not know."""

from __future__ import annotations

import string
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.adapters.valkey import codec, engine_codec, frames, packing
from chatserver.domain.item import Conversation, Item, Message
from chatserver.domain.ledger import Ledger
from chatserver.domain.logprob import Logprob
from chatserver.domain.response import (
    Failure,
    Finish,
    Outcome,
    Params,
    Response,
    Status,
    Timing,
    Usage,
)
from chatserver.domain.tape import Accepted, Delta, Ended, ItemClosed, ItemOpened, Queued, Record, Started
from chatserver.errors import BadRequest, Unavailable
from chatserver.ports.registry import EngineReport, ServedModel

text = st.text(max_size=20)
word = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
number = st.integers(-(2**53), 2**53)
real = st.floats(allow_nan=False, allow_infinity=False)
token = st.integers(0, 2**32 - 1)
json = st.recursive(
    st.none() | st.booleans() | number | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
st.register_type_strategy(float, real)
st.register_type_strategy(int, number)
st.register_type_strategy(str, text)

params = st.builds(
    Params,
    metadata=st.dictionaries(text, text, max_size=3),
    echo=st.dictionaries(text, json, max_size=3),
)
items = st.builds(Item)
logprobs = st.lists(
    st.builds(Logprob, text, real, st.lists(st.tuples(text, real), max_size=2).map(tuple)), max_size=3
).map(tuple)
outcomes = st.builds(
    Outcome,
    usage=st.builds(Usage),
    item=st.none() | items,
    timing=st.builds(Timing),
    ledger=st.none() | st.builds(Ledger),
    failure=st.none() | st.builds(Failure),
    logprobs=st.lists(logprobs, max_size=2).map(tuple),
)
optional_word = st.none() | word
responses = st.builds(
    Response,
    params=params,
    conversation=optional_word,
    parent=optional_word,
    previous=optional_word,
    owner=optional_word,
    outcome=st.none() | outcomes,
    claim=st.integers(0, 2**31),
)
conversations = st.builds(
    Conversation,
    created_at=st.integers(0, 2**40),
    updated_at=st.integers(1, 2**40),
    metadata=st.none() | st.dictionaries(text, text, max_size=3),
    head=st.none(),
    active=st.none(),
)
plain_deltas = st.lists(st.tuples(text, token), min_size=1, max_size=6).map(
    lambda pairs: Delta(tuple(p for p, _ in pairs), tuple(i for _, i in pairs))
)
deltas = plain_deltas | st.lists(st.tuples(text, token, logprobs), min_size=1, max_size=6).map(
    lambda rows: Delta(
        *map(tuple, zip(*[row[:2] for row in rows], strict=True)), logprobs=tuple(r[2] for r in rows)
    )
)
bodies = st.one_of(
    st.just(Accepted()),
    st.just(Queued()),
    st.builds(Started),
    st.builds(ItemOpened),
    deltas,
    st.builds(ItemClosed),
    st.builds(ItemClosed, logprobs=logprobs),
    st.builds(Ended, outcomes),
)
records = st.builds(Record, st.integers(0, 2**32 - 1), bodies)


OUTCOME = Outcome(Status.COMPLETED, Finish.STOP, Usage(1, 0, 2))


def wire(pairs: list[bytes | str | int]) -> list[bytes]:
    """What the server would answer for these fields."""
    return [part if isinstance(part, bytes) else str(part).encode() for part in pairs]


@given(params)
def test_params(value: Params) -> None:
    assert codec.decode_params(codec.encode_params(value)) == value


@given(outcomes)
def test_outcome(value: Outcome) -> None:
    assert codec.decode_outcome(codec.encode_outcome(value)) == value


@given(responses)
def test_response(value: Response) -> None:
    assert codec.decode_response(value.id, wire(codec.encode_response(value))) == value


@given(conversations)
def test_conversation(value: Conversation) -> None:
    assert codec.decode_conversation(value.id, wire(codec.encode_conversation(value))) == value


@given(items)
def test_item(value: Item) -> None:
    stored = codec.encode_item(value)
    above = replace(value, id=value.parent or "x", parent=None)
    names = [value.id, value.parent or "", ""]
    assert codec.decode_items([stored], names[:2]) == [replace(value, parent=value.parent or None)]
    if value.parent:
        assert codec.decode_items([stored, codec.encode_item(above)], names) == [value, above]


@given(st.lists(token, max_size=50), st.text(max_size=20), st.slices(50) | st.lists(token, max_size=9))
def test_token_ids(ids: list[int], mark: str, emitted: slice | list[int]) -> None:
    """What was emitted comes back, whether it is a part of the ids or not."""
    written = tuple(ids[emitted] if isinstance(emitted, slice) else emitted)
    assert packing.decode_ids(packing.encode_ids(ids, mark, written)) == (tuple(ids), mark, written)


@given(st.builds(EngineReport, model=st.none() | st.builds(ServedModel)))
def test_report(value: EngineReport) -> None:
    assert engine_codec.decode_report(engine_codec.encode_report(value)) == value


@given(bodies)
def test_body(body: Delta) -> None:
    assert frames.decode_body(frames.encode_body(body)) == body


@given(st.lists(st.tuples(word, st.lists(records, max_size=3)), max_size=4))
def test_bundle(parts: list[tuple[str, list[Record]]]) -> None:
    encoded = [(tape, [(r.last, frames.encode_body(r.body)) for r in written]) for tape, written in parts]
    sections = [frames.section(tape, bodies) for tape, bodies in encoded]
    assert frames.split(frames.join(sections)) == parts
    wanted = parts[:1]
    names = {tape for tape, _ in wanted}
    assert frames.split(frames.join(sections), names.__contains__) == [p for p in parts if p[0] in names]


@pytest.mark.parametrize("foreign", [b"[2,4,[],[]]", b"{", b"[]", b"null", b"[1,99]", b"[1,2]", b"[1]"])
def test_a_form_of_another_version_is_refused_clearly(foreign: bytes) -> None:
    with pytest.raises(Unavailable, match="stored value"):
        frames.decode_body(foreign)


def test_unknown_and_missing_fields_are_refused() -> None:
    stored = orjson.loads(codec.encode_params(Params("m")))
    for change in ({"new": 1}, {"truncation": "nonsense"}, {"stop": None}):
        with pytest.raises(Unavailable, match="stored value"):
            codec.decode_params(orjson.dumps([1, {**stored[1], **change}]))
    with pytest.raises(Unavailable, match="upgrade"):
        frames.split(b"\x02")
    with pytest.raises(Unavailable, match="upgrade"):
        packing.decode_ids(b"\x01\x00")
    with pytest.raises(Unavailable, match="upgrade"):
        codec.decode_conversation("conv", [b"v", b"2"])


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1: 2}, object()])
def test_what_has_no_stored_form_is_the_clients_error(value: object) -> None:
    with pytest.raises(BadRequest):
        codec.encode_params(Params("m", echo={"x": value}))


def test_what_was_written_before_there_were_log_probabilities() -> None:
    """Deltas, ends of parts and outcomes of older tapes are read as they were meant."""
    assert frames.decode_body(packing.pack(4, ("a",), (1,))) == Delta(("a",), (1,))
    old = packing.pack(5, "msg_1", "ab", True, "text", 0, "", "")
    assert (
        frames.decode_body(old) == ItemClosed("msg_1", "ab", True)
        and frames.encode_body(ItemClosed("msg_1", "ab", True)) == old
    )
    (fields,) = packing.unpack(codec.encode_outcome(OUTCOME))
    del fields["logprobs"]
    assert codec.outcome_from(fields) == OUTCOME


def test_parameters_that_many_requests_share_are_read_once():
    """Not those with messages, which no two requests share, nor long ones; and not without bound."""
    shared = codec.encode_params(Params("m", temperature=0.25))
    assert codec.decode_params(shared) is codec.decode_params(bytes(bytearray(shared)))
    long = codec.encode_params(Params("m", instructions="x" * codec.SEEN_LENGTH))
    own = codec.encode_params(Params("m", messages=(Message("user", "hi"),)))
    for alone in (long, own):
        assert codec.decode_params(alone) == codec.decode_params(alone)
        assert codec.decode_params(alone) is not codec.decode_params(alone)
    for seed in range(2 * codec.SEEN):
        codec.decode_params(codec.encode_params(Params("m", seed=seed)))
    assert len(codec._seen) == codec.SEEN
