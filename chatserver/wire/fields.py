"""Take the fields out of a JSON object, one by one, and name the field that is wrong.

    fields = Fields(body)
    model = fields.text("model")              # "model: expected a string, got 5"
    fields.inert("tools", None, [])           # sent by clients by default, means nothing here
    fields.done()                             # "Unknown parameter: 'modle'. Did you mean 'model'?"

Every check raises BadRequest with `param` set to the path of the field, like `input[2].content[0].text`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import orjson

from chatserver.errors import BadRequest

REQUIRED: Any = object()
"""Marks a field without a default."""

MAX_DIGITS = 20
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512


def wrong(path: str, expected: str, value: object, *, code: str = "invalid_value") -> BadRequest:
    """Return the error that says what was expected at `path` and what was got."""
    return BadRequest(f"{path}: expected {expected}, got {describe(value)}", param=path, code=code)


def at_most(path: str, most: int, what: str, value: str | list[Any]) -> None:
    """Raise BadRequest if a text or a list has more than `most` of `what`."""
    if len(value) > most:
        kind = "string_above_max_length" if isinstance(value, str) else "array_above_max_length"
        raise BadRequest(f"{path}: expected at most {most} {what}, got {len(value)}", param=path, code=kind)


def describe(value: object) -> str:
    """Return a short description of a JSON value for an error message: at most 60 characters of it."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = value if isinstance(value, str) else str(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return repr(short)
    return {None: "null", True: "true", False: "false"}.get(value, short) if _is_word(value) else short


def load(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request body. Raises BadRequest.

    orjson refuses NaN, lone surrogates and deep nesting, so what comes back can be encoded again.
    """
    if not body.strip():
        raise BadRequest("The body is empty: expected a JSON object.", code="invalid_json")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        path = _surrogate_in(body)
        if path is not None:
            raise BadRequest(
                f"{path}: expected Unicode text, got a surrogate without its pair",
                param=path,
                code="invalid_json",
            ) from None
        raise BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest(f"The body: expected a JSON object, got {describe(value)}", code="invalid_type")
    return value


def digits(text: str, low: int, high: int) -> int | None:
    """Return the whole number in [low, high] that the digits of a query are, None if they are no such number."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        return None
    number = int(text)
    return number if low <= number <= high else None


def unknown(name: str, known: Iterable[str], path: str = "") -> BadRequest:
    """Return the error for a field that there is not; `known`: those that there are, `path`: where it stands."""
    before = f"{path}." if path else ""
    shown = before + (name if len(name) <= 60 else name[:57] + "...")
    meant = get_close_matches(name[:60], known, 1, 0.7)
    hint = f" Did you mean '{before}{meant[0]}'?" if meant else ""
    return BadRequest(f"Unknown parameter: '{shown}'.{hint}", param=shown, code="unknown_parameter")


def metadata(value: object, path: str = "metadata") -> dict[str, str]:
    """Check metadata: at most 16 pairs of short strings; null means none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(path, "an object of strings", value, code="invalid_type")
    if len(value) > MAX_METADATA:
        raise wrong(path, f"at most {MAX_METADATA} pairs", value)
    for key, text in value.items():
        if not 0 < len(key) <= MAX_METADATA_KEY:
            raise wrong(path, f"keys of 1 to {MAX_METADATA_KEY} characters", key)
        place = f"{path}.{key}"
        if not isinstance(text, str):
            raise wrong(place, "a string", text, code="invalid_type")
        if len(text) > MAX_METADATA_VALUE:
            raise wrong(place, f"at most {MAX_METADATA_VALUE} characters", text)
    return value


class Fields:
    """The fields of one JSON object that have not been taken yet."""

    __slots__ = ("_known", "_left", "_path")

    def __init__(self, value: object, path: str = "") -> None:
        """Raises BadRequest if `value` is no object."""
        if not isinstance(value, Mapping):
            raise wrong(path or "body", "an object", value, code="invalid_type")
        self._left: dict[str, Any] = dict(value)
        self._known: list[str] = []
        self._path = path

    def path(self, name: str) -> str:
        """Return the full path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the field was sent and has not been taken."""
        return name in self._left

    def peek(self, name: str) -> Any:
        """Return a field as it is and leave it there; None if it was not sent."""
        return self._left.get(name)

    def take(self, name: str, default: object = None) -> Any:
        """Take a field as it is."""
        self._known.append(name)
        value = self._left.pop(name, default)
        if value is REQUIRED:
            path = self.path(name)
            raise BadRequest(
                f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
            )
        return value

    def text(self, name: str, default: Any = REQUIRED, *, longest: int = 512, shortest: int = 0) -> Any:
        """Take a string of `shortest` to `longest` characters; null counts as not sent."""
        value = self._sent(name, default)
        if value is None:
            return default
        if not isinstance(value, str):
            raise wrong(self.path(name), "a string", value, code="invalid_type")
        if not shortest <= len(value) <= longest:
            path = self.path(name)
            raise BadRequest(
                f"{path}: expected {shortest} to {longest} characters, got {len(value)}",
                param=path,
                code="string_above_max_length" if len(value) > longest else "invalid_value",
            )
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Take true or false; null counts as not sent."""
        value = self._sent(name, default)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(self.path(name), "true or false", value, code="invalid_type")
        return value

    def whole(self, name: str, default: Any, low: int, high: int) -> Any:
        """Take a whole number in [low, high]; null counts as not sent."""
        value = self._sent(name, default)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(self.path(name), "a whole number", value, code="invalid_type")
        if not low <= value <= high:
            raise wrong(self.path(name), f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, default: Any, low: float, high: float) -> Any:
        """Take a finite number in [low, high]; null counts as not sent."""
        value = self._sent(name, default)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(self.path(name), "a number", value, code="invalid_type")
        # Compared before converting: a JSON integer may be too large for a float.
        if not low <= value <= high or not math.isfinite(value):
            raise wrong(self.path(name), f"a number from {low:g} to {high:g}", value)
        return float(value)

    def items(self, name: str, default: Any = REQUIRED, *, most: int) -> Any:
        """Take a list of at most `most` elements; null counts as not sent."""
        value = self._sent(name, default)
        if value is None:
            return default
        path = self.path(name)
        if not isinstance(value, list):
            raise wrong(path, "a list", value, code="invalid_type")
        at_most(path, most, "elements", value)
        return value

    def inert(self, name: str, *harmless: object, why: str = "is not supported") -> Any:
        """Take a field that may only have a value which changes nothing here; refuse any other."""
        self._known.append(name)
        if name not in self._left:
            return None
        value = self._left.pop(name)
        # bool equals int in Python: 1 must not pass for true.
        if any(value == known and type(value) is type(known) for known in (None, *harmless)):
            return value
        path = self.path(name)
        allowed = dict.fromkeys(orjson.dumps(known).decode() for known in (*harmless, None))
        raise BadRequest(
            f"{path}: {describe(value)} {why}; leave it out or send {' or '.join(allowed)}",
            param=path,
            code="unsupported_parameter",
        )

    def done(self, why: str = "") -> None:
        """Refuse whatever was not taken; null counts as not sent where `why` says what is wrong with it."""
        for name, value in self._left.items():
            path = self.path(name if len(name) <= 60 else name[:57] + "...")
            if why and value is None:
                continue
            if why:
                raise BadRequest(f"{path}: {why}", param=path, code="unsupported_parameter")
            raise unknown(name, self._known, self._path)

    def _sent(self, name: str, default: object) -> Any:
        """Take a field as it is; None: it was not sent, and has a default. Raises BadRequest if it has none."""
        value = self.take(name, REQUIRED if default is REQUIRED else None)
        if value is None and default is REQUIRED:
            raise wrong(self.path(name), "a value", None, code="missing_required_parameter")
        return value


def _surrogate_in(body: bytes) -> str | None:
    """Return the path of the first string with a lone surrogate, which other JSON parsers let pass."""
    if b"\\u" not in body:
        return None
    try:
        waiting: list[tuple[str, Any]] = [("", json.loads(body))]
    except (ValueError, RecursionError):
        return None
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            return path or "body"
        if isinstance(value, dict):
            waiting += [
                (f"{path}.{name}" if path else name, inner)
                for name, inner in value.items()
                if _encodable(name)
            ]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    return None


def _encodable(name: str) -> bool:
    return name.isascii() and len(name) <= 60


def _is_word(value: object) -> bool:
    return value is None or isinstance(value, bool)
