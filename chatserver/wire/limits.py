"""What clients are told about the limits of their key: OpenAI's headers."""

from __future__ import annotations

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


def duration(milliseconds: int) -> str:
    """Return a duration as OpenAI writes it: 17ms, 1.5s, 1m0s."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s"
