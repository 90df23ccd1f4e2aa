"""Bodies that are no JSON, and any JSON: they are read or refused, and nothing else happens."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.errors import BadRequest, ChatServerError
from chatserver.wire import chat_completions, conversations, frames, responses
from chatserver.wire.fields import load
from tests.chatserver.wire.refusals import refusal


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"[]",
        b"5",
        b'"x"',
        b"\xff",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 5_000,
    ],
)
def test_broken_json_is_refused(body):
    refusal(load, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"input": "\\ud800"}', "input"),
        (b'{"a": 1, "messages": [{"content": "x\\udfffy"}]}', "messages[0].content"),
        (b'{"\\ud800": 1}', None),
        (b'{"a": NaN, "b": "\\u0041"}', None),
        (b'{"a": "\\u0041", "b": ' + b"[" * 5000, None),
    ],
)
def test_a_lone_surrogate_is_named(body, param):
    assert refusal(load, body).param == param


def _words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(re.findall(r"\S+", text))


names = _words("""
    model messages input role content type text metadata stream stream_options stop temperature tools conversation
    id parent truncation retention_ratio previous_response_id include reasoning effort format items title n seed
    stream_id response_id starting_after token idempotency_key thinking user store background
""")
words = _words("""
    user assistant system tool message text input_text output_text auto disabled retention_ratio response.create
    response.attach response.cancel auth conversation.subscribe
""")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | words
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(), inner, max_size=6),
    max_leaves=25,
)
bodies = st.dictionaries(names | st.text(), values, max_size=12)
LIKELY = {
    "model": "m",
    "messages": [{"role": "user", "content": "x"}],
    "input": "x",
    "type": "response.create",
}
PARSERS = [
    chat_completions.parse,
    responses.parse,
    conversations.parse_create,
    conversations.parse_update,
    conversations.parse_items,
    lambda body: frames.parse(orjson.dumps(body)),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(bodies, st.booleans())
@settings(max_examples=120, deadline=None)
def test_random_json_is_parsed_or_refused(parse, body, likely):
    """Nothing but our own errors, whose bodies can be sent."""
    if likely:
        body = LIKELY | body
    try:
        parse(body)
    except ChatServerError as error:
        orjson.dumps(error.body)
        assert 400 <= error.status < 500 and len(error.message) < 2_000


@given(st.binary(max_size=200))
def test_random_bytes_are_parsed_or_refused(data):
    for parse in (load, frames.parse, frames.stream_id_in):
        try:
            parse(data)
        except BadRequest as error:
            orjson.dumps(error.body)
