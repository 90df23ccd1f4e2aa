"""Settings: one frozen class, one reader, one table.

Every setting is `CHATSERVER_<NAME>` in the environment and `--<name>` on the command line (which wins).
Platforms that hand out a Redis call it REDIS_URL: that is read too, where CHATSERVER_REDIS_URL is not set.
An unknown CHATSERVER_ variable or a value that does not parse is a StartupError that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from chatserver.errors import StartupError

PREFIX = "CHATSERVER_"


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process runs. Durations in seconds, sizes in bytes unless the name says otherwise."""

    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = Path(".data")
    model: str = "smollm2-135m-instruct"
    """Model name, a folder in Hugging Face form, or `scripted`."""
    context: int | None = None
    """Window in tokens; None: the model's."""
    aliases: tuple[str, ...] = (
        "deepseek-chat",
        "deepseek-reasoner",
        "deepseek-v3",
        "deepseek-v3.1",
        "deepseek-v3.2",
    )
    """Other names of the model, so that clients of another server need not be changed."""
    profile: str | None = None
    """Name of a profile in engine/profiles, or a .toml file; None: the CPU."""
    redis_url: str | None = None
    """None: the embedded store in the data folder."""
    api_keys: tuple[tuple[str, str], ...] = ()
    """(tenant, key) pairs; none: only the loopback address is served, to tenant `local`."""
    prices: Path | None = None
    """TOML file with what models cost; None: answers have no cost."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call from a browser, beside this server's own."""
    engine_id: str | None = None
    listen_fd: int | None = None
    log_level: str = "info"
    queue_bound: int = 64
    """Waiting jobs per shard; one more is refused with 429."""
    max_running: int | None = None
    """Answers that one engine works on at once; None: as many as the profile says, 32 without one."""
    max_output_tokens: int = 2048
    """Output reserve and bound when a request names none."""
    max_body: int = 2_000_000
    max_connections: int = 10_000
    """Connections of one web process; one more is refused with 503."""
    idle: float = 3600.0
    """How long a WebSocket may be silent while it has no answer in progress."""
    abandon_after: float = 600.0
    """How long an answer may run without a reader; 0: for ever. Answers begun in the background are not counted."""
    abandoned: str = "stop"
    """Then: `stop` it, or `give_way`: it takes no place in the scheduler that another answer waits for."""
    tape_ttl: int = 3600
    """How long an answer that has ended can be followed again, and read if it was not to be stored."""
    lease: float = 6.0
    """How long an engine may be silent before its jobs are given to another."""
    silence: float = 120.0
    """How long an answer may wait for its next token, and the schedulers may give no sign of life."""
    drain: float = 20.0
    """How long a stopping process may finish what it has."""
    scripted_tokens_per_second: float = 50.0
    scripted_ttft_ms: float = 20.0


def read(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Return settings from the environment, then `overrides` that are not None. Raises StartupError."""
    environ = os.environ if environ is None else environ
    known = {_variable(f.name): f.name for f in fields(Settings)}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if variable in known and text != "":
            found[known[variable]] = _parse(known[variable], text, variable)
        elif variable.startswith(PREFIX) and variable not in known and variable not in _FOREIGN:
            near = get_close_matches(variable, known, n=3) or sorted(known)
            raise StartupError(f"{variable}: unknown setting; did you mean {' or '.join(near)}?", exit_code=2)
    if "redis_url" not in found and environ.get("REDIS_URL"):
        found["redis_url"] = _parse("redis_url", environ["REDIS_URL"], "REDIS_URL")
    for name, value in overrides.items():
        if value is not None:
            found[name] = (
                _parse(name, value, f"--{name.replace('_', '-')}") if isinstance(value, str) else value
            )
    settings = replace(Settings(), **found)
    prices = settings.prices and settings.prices.expanduser().absolute()
    return replace(settings, data_dir=settings.data_dir.expanduser().absolute(), prices=prices)


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make a child process read the same settings."""
    result = {}
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value is None or (value == () and field.name != "aliases"):
            continue
        if isinstance(value, tuple):
            value = ",".join(":".join(part) if isinstance(part, tuple) else part for part in value) or "none"
        result[_variable(field.name)] = str(value)
    return result


class Option(NamedTuple):
    """One setting, as the command line and the documents show it. `default`: as one types it, or empty."""

    name: str
    flag: str
    variable: str
    expected: str
    default: str


def options() -> list[Option]:
    """Return every setting, in the order of `Settings`."""
    defaults = environment(Settings())
    return [
        Option(
            field.name,
            f"--{field.name.replace('_', '-')}",
            _variable(field.name),
            _PARSERS[field.name][1],
            defaults.get(_variable(field.name), ""),
        )
        for field in fields(Settings)
    ]


_FOREIGN = frozenset({"CHATSERVER_TEST_DATA", "CHATSERVER_URL", "CHATSERVER_TOKEN"})
"""Variables of the tests and of `chatserver chat`, which the server does not read."""


def _variable(name: str) -> str:
    # the scripted engine's and the store's variables are conventions of their own
    return name.upper() if name.startswith("scripted_") else PREFIX + name.upper()


def _parse(name: str, text: str, source: str) -> Any:
    parser, expected = _PARSERS[name]
    try:
        return parser(text.strip())
    except ValueError as error:
        detail = f" ({error})" if str(error) and "invalid literal" not in str(error) else ""
        raise StartupError(f"{source}: expected {expected}, got {text!r}{detail}", exit_code=2) from None


def _bounded(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse


def _keys(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for entry in text.split(","):
        tenant, colon, key = entry.strip().partition(":")
        if not (tenant and colon and len(key) >= 8):
            raise ValueError("each key needs a tenant name, a colon and at least 8 characters")
        pairs.append((tenant, key))
    return tuple(pairs)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().rstrip("/") for origin in text.split(","))
    for origin in origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?|https?://\[[0-9A-Fa-f:]+\](:\d+)?", origin):
            raise ValueError(f"{origin!r} is none; there is no wildcard")
    return origins


def _names(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", name) for name in names):
        raise ValueError
    return names


def _url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError
    return text


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError
    return text.lower()


def _patience(text: str) -> float:
    value = float(text)
    if value and not 60 <= value <= 86_400:  # web processes say every 20 s what is watched
        raise ValueError
    return value


def _abandoned(text: str) -> str:
    if text not in ("stop", "give_way"):
        raise ValueError
    return text


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "host": (_text, "an address to listen on"),
    "port": (_bounded(int, 0, 65535), "a port from 0 to 65535"),
    "data_dir": (Path, "a folder"),
    "model": (_text, "a model name, a model folder, or scripted"),
    "context": (_bounded(int, 256, 10_000_000), "a window in tokens, at least 256"),
    "aliases": (_names, "names separated by commas, or none"),
    "profile": (_text, "a profile's name, or a .toml file"),
    "redis_url": (_url, "redis://, rediss:// or unix:// address"),
    "api_keys": (_keys, "tenant:key pairs separated by commas"),
    "prices": (Path, "a TOML file"),
    "cors_origins": (_origins, "origins separated by commas, as in https://chat.example"),
    "engine_id": (_text, "an engine id"),
    "listen_fd": (_bounded(int, 3, 4096), "a file descriptor"),
    "log_level": (_level, "debug, info, warning or error"),
    "queue_bound": (_bounded(int, 1, 100_000), "a count from 1 to 100000"),
    "max_running": (_bounded(int, 1, 10_000), "a count from 1 to 10000"),
    "max_output_tokens": (_bounded(int, 1, 10_000_000), "a count of tokens, at least 1"),
    "max_body": (_bounded(int, 1024, 1_000_000_000), "a size in bytes, at least 1024"),
    "max_connections": (_bounded(int, 1, 1_000_000), "a count from 1 to 1000000"),
    "idle": (_bounded(float, 1, 86_400), "seconds from 1 to 86400"),
    "abandon_after": (_patience, "0, or seconds from 60 to 86400"),
    "abandoned": (_abandoned, "stop or give_way"),
    "tape_ttl": (_bounded(int, 10, 604_800), "seconds from 10 to 604800"),
    "lease": (_bounded(float, 0.5, 600), "seconds from 0.5 to 600"),
    "silence": (_bounded(float, 5, 3600), "seconds from 5 to 3600"),
    "drain": (_bounded(float, 0, 3600), "seconds from 0 to 3600"),
    "scripted_tokens_per_second": (_bounded(float, 0.1, 1_000_000), "a rate above 0.1"),
    "scripted_ttft_ms": (_bounded(float, 0, 600_000), "milliseconds"),
}
