"""No line of a log has a secret, whoever writes it."""

import logging

import pytest

from chatserver.service.logs import HIDDEN, MOST, Redacting, Sparing

KEY = "sk-0a0123456789abcd-" + "Zm9v" * 10 + "abc"


@pytest.mark.parametrize(
    "text",
    [
        f"refused {KEY}",
        "authorization: Bearer a-static-secret",
        "AUTHORIZATION: bearer\tother-secret, x",
        'frame {"type":"auth","token":"third-secret"}',
        "subprotocol openai-insecure-api-key.fourth-secret",
        "cannot reach rediss://user:fifth-secret@store:6379",
        "the key static-secret was sent",
    ],
)
def test_secrets_are_hidden(text):
    line = Redacting(["static-secret"]).format(logging.LogRecord("n", 20, "p", 1, "%s", (text,), None))
    assert HIDDEN in line and "secret" not in line.replace(HIDDEN, "") and KEY[20:] not in line


def test_tracebacks_too():
    error = ValueError(KEY)
    info = (ValueError, error, None)
    line = Redacting().format(logging.LogRecord("n", 40, "p", 1, "failed", (), info))
    assert KEY[20:] not in line and "sk-0a0123456789abcd-" + HIDDEN in line


def test_what_is_no_secret_stays():
    text = "GET /v1/responses/resp_00 took 3 ms; see https://example.org/a@b"
    assert text in Redacting().format(logging.LogRecord("n", 20, "p", 1, text, (), None))


def record(text: str, at: float, level: int = logging.WARNING, info=None) -> logging.LogRecord:
    made = logging.LogRecord("n", level, "p", 1, "%s", (text,), info)
    made.created = at
    return made


def test_what_repeats_itself_is_printed_once_a_minute():
    """The next line says how many there were; others are printed all the same, and nothing grows."""
    sparing = Sparing()
    assert [sparing.filter(record("away", 100.0 + second)) for second in range(60)] == [True, *[False] * 59]
    assert sparing.filter(record("also", 130.0)) and sparing.filter(record("away", 130.0, logging.INFO))
    again = record("away", 160.0)
    assert sparing.filter(again) and again.getMessage() == "away (59 more like this in 60 s)"
    assert sparing.filter(record("away", 220.5)) and sparing.filter(record("away", 5.0)), (
        "a clock may be set back"
    )
    for number in range(3 * MOST):
        assert sparing.filter(record(f"{number}", 300.0))
    assert len(sparing._printed) <= MOST


def test_tracebacks_are_never_dropped():
    sparing, info = Sparing(), (ValueError, ValueError("x"), None)
    assert all(sparing.filter(record("broken", 1.0, logging.ERROR, info)) for _ in range(3))
