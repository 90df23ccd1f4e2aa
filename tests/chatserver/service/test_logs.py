"""No line of a log has a secret, whoever writes it."""

import logging

import pytest

from chatserver.service.logs import HIDDEN, Redacting

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
