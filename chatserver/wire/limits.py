"""What clients are told about the limits of their key: OpenAI's headers, and its event on an open socket."""

from __future__ import annotations

import orjson

from chatserver.ports.accounts import Verdict


def rate_headers(verdict: Verdict) -> dict[str, str]:
    """Return x-ratelimit-{limit,remaining,reset}-{requests,tokens} for the limits that the key has."""
    found = {}
    for name, rate in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if rate is not None:
            found[f"x-ratelimit-limit-{name}"] = str(rate.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(rate.remaining)
            found[f"x-ratelimit-reset-{name}"] = duration(rate.reset_ms)
    return found


def updated_event(verdict: Verdict | None, stream_id: str | None = None) -> bytes | None:
    """Return what a socket is told as an answer begins, in the form of OpenAI's realtime API; None without limits.

    What the answer may use is taken already; what it did not use comes back when it ends.
    """
    rates = {"requests": verdict.requests, "tokens": verdict.tokens} if verdict else {}
    listed = [
        {
            "name": name,
            "limit": rate.limit,
            "remaining": rate.remaining,
            "reset_seconds": rate.reset_ms / 1000,
        }
        for name, rate in rates.items()
        if rate is not None
    ]
    if not listed:
        return None
    lane = {} if stream_id is None else {"stream_id": stream_id}
    return orjson.dumps({"type": "rate_limits.updated", "rate_limits": listed, **lane})


def duration(milliseconds: int) -> str:
    """Return a duration as OpenAI writes it: 17ms, 1.5s, 1m0s."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s"
