"""What a client makes of the bytes that it gets."""

from __future__ import annotations


def error_of(response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"] and response.headers["content-type"] == "application/json"
    return error


def parse_sse(text: str) -> list[dict]:
    """The EventSource algorithm: fields of each event; comments are dropped."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            events.append(dict(line.split(": ", 1) for line in lines))
    return events
