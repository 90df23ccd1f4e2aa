"""The documents as pages: plain HTML that needs no script; one script adds the search.

Everything is escaped on its way in; the pages hold no inline script or style, for the content security policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from chatserver.wire.documents.pieces import Schema

_NOTES = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "up to {} characters",
    "maxItems": "up to {}",
    "maxProperties": "up to {}",
    "pattern": "matches {}",
    "default": "default: {}",
}
_PAGES = (
    ("/docs", "HTTP"),
    ("/docs/events", "Events and WebSocket"),
    ("/docs/developers", "For app developers"),
)
_TAGS = ["Responses", "Conversations", "Chat Completions", "Models", "Account", "Server"]


def page(path: str, title: str, body: str, *, search: bool) -> bytes:
    """Return a whole page."""
    here = ' aria-current="page"'
    links = "".join(f'<a href="{url}"{here if url == path else ""}>{name}</a>' for url, name in _PAGES)
    field = (
        '<label class="find" hidden><span>Search</span><input type="search" id="find" autocomplete="off" '
        'maxlength="100"></label><p id="found" role="status" class="note"></p>'
        if search
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · chatserver</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs/docs.css">
<script type="module" src="/docs/docs.js"></script>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><a class="home" href="/">chatserver</a><nav aria-label="Documents">{links}</nav></header>
<main id="content"><h1>{escape(title)}</h1>{field}{body}</main>
</body>
</html>
""".encode()


def http(document: dict[str, Any]) -> bytes:
    """Return the page of the OpenAPI document."""
    found: dict[str, list[str]] = {tag: [] for tag in _TAGS}
    for path, item in document["paths"].items():
        shared = item.get("parameters", [])
        for method, operation in item.items():
            if method != "parameters":
                found[operation["tags"][0]].append(_operation(method, path, operation, shared))
    parts = [
        f"<p>{_text(document['info']['description'])} "
        'The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
    ]
    parts += [
        f"<section><h2>{escape(tag)}</h2>{''.join(all_)}</section>" for tag, all_ in found.items() if all_
    ]
    parts += [_errors(document["components"]["responses"]), _schemas(document["components"]["schemas"])]
    return page("/docs", "HTTP", "".join(parts), search=True)


def events(document: dict[str, Any]) -> bytes:
    """Return the page of the AsyncAPI document."""
    messages, parts = document["components"]["messages"], []
    for name, channel in document["channels"].items():
        parts.append(f'<section id="{escape(name)}"><h2>{escape(channel["title"])}</h2>')
        parts.append(f"<p><code>{escape(channel['address'])}</code> {_text(channel['description'])}</p>")
        for operation in document["operations"].values():
            if operation["channel"]["$ref"].rsplit("/", 1)[-1] != name:
                continue
            listed = [messages[m["$ref"].rsplit("/", 1)[-1]] for m in operation["messages"]]
            parts.append(
                f"<h3>{escape(operation['title'])}</h3>"
                + "".join(_message(name, message) for message in listed)
            )
        parts.append("</section>")
    parts.append(_closings(document["channels"]["socket"]["x-close-codes"]))
    intro = f"<p>{_text(document['info']['description'])} The same for programs: "
    intro += '<a href="/asyncapi.json">asyncapi.json</a>.</p>'
    body = intro + "".join(parts) + _schemas(document["components"]["schemas"])
    return page("/docs/events", "Events and WebSocket", body, search=True)


def _operation(method: str, path: str, operation: Schema, shared: list[Schema]) -> str:
    parts = [_parameters([*shared, *operation.get("parameters", [])])]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body <span class=note>{escape(kind)}</span></h4>{_value(content['schema'])}")
    own = {status: answer for status, answer in operation["responses"].items() if "$ref" not in answer}
    for status, answer in own.items():
        parts.append(f"<h4>{escape(status)} <span class=note>{_text(answer['description'])}</span></h4>")
        for kind, content in answer.get("content", {}).items():
            parts.append(f"<p class=note>{escape(kind)}</p>{_value(content['schema'])}")
    links = [
        f'<a href="#status-{status}">{status}</a>' for status in operation["responses"].keys() - own.keys()
    ]
    parts.append(f"<h4>Errors <span class=note>{' '.join(sorted(links))}</span></h4>")
    return (
        f'<details data-find id="{escape(operation["operationId"])}"><summary><b class="{method}">{method.upper()}</b> '
        f"<code>{escape(path)}</code> <span>{_text(operation['summary'])}</span></summary>{''.join(parts)}</details>"
    )


def _errors(responses: dict[str, Schema]) -> str:
    rows = "".join(
        f'<details data-find id="status-{status}"><summary><code>{status}</code> '
        f"<span>{_text(answer['description'])}</span></summary><h4>Headers</h4><ul>{_headers(answer['headers'])}</ul>"
        f"{_value(answer['content']['application/json']['schema'])}</details>"
        for status, answer in responses.items()
    )
    return f"<section><h2>Errors</h2>{rows}</section>"


def _headers(headers: dict[str, Schema]) -> str:
    return "".join(
        f"<li><code>{escape(name)}</code> {_type(header['schema'])}"
        f"{' <em>required</em>' if header.get('required') else ''}"
        f" <span class=note>{_text(header.get('description', ''))}</span></li>"
        for name, header in headers.items()
    )


def _parameters(parameters: list[Schema]) -> str:
    rows = "".join(
        f"<li><code>{escape(p['name'])}</code> <i>{escape(p['in'])}</i> {_type(p['schema'])}"
        f"{_notes(p['schema'])}{' <em>required</em>' if p.get('required') else ''}</li>"
        for p in parameters
    )
    return f"<h4>Parameters</h4><ul>{rows}</ul>" if rows else ""


def _message(channel: str, message: Schema) -> str:
    text, anchor = message.get("summary", ""), f"{channel}.{message['name']}"
    return (
        f'<details data-find id="{escape(anchor)}"><summary><code>{escape(message["name"])}</code> '
        f"<span>{_text(text)}</span></summary>{_value(message['payload'])}</details>"
    )


def _closings(closings: list[Schema]) -> str:
    rows = "".join(
        f"<tr><td><code>{c['code']}</code></td><td>{escape(c['why'])}</td><td>{escape(c['comeBack'])}</td></tr>"
        for c in closings
    )
    head = "<tr><th scope=col>code</th><th scope=col>why</th><th scope=col>may I come back?</th></tr>"
    return f'<section id="closing"><h2>Close codes</h2><div class=wide><table>{head}{rows}</table></div></section>'


def _schemas(schemas: dict[str, Schema]) -> str:
    rows = "".join(
        f'<details data-find id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"{_value(schema)}</details>"
        for name, schema in schemas.items()
    )
    return f"<section><h2>Schemas</h2>{rows}</section>"


def _value(schema: Schema) -> str:
    """Return a schema as a block: its type, and the fields of what it holds."""
    return f"<p>{_type(schema)}{_notes(schema)}</p>{_fields(schema)}"


def _fields(schema: Schema) -> str:
    """Return the fields of the object in a schema, wherever it is in there."""
    if "properties" in schema:
        required = schema.get("required", ())
        rows = "".join(
            f"<li><code>{escape(name)}</code> {_type(inner)}{' <em>required</em>' if name in required else ''}"
            f"{_notes(inner)}{_fields(inner)}</li>"
            for name, inner in schema["properties"].items()
        )
        return f"<ul>{rows}</ul>"
    inner = [*schema.get("oneOf", ()), *([schema["items"]] if "items" in schema else [])]
    return "".join(map(_fields, inner))


def _type(schema: Schema) -> str:
    """Return a schema's type in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if "const" in schema:
        return f"<code>{_json(schema['const'])}</code>"
    if "enum" in schema:
        return _or(f"<code>{_json(value)}</code>" for value in schema["enum"])
    if "oneOf" in schema:
        return _or(map(_type, schema["oneOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    kind = schema.get("type", "anything")
    return _or(kind) if isinstance(kind, list) else escape(str(kind))


def _notes(schema: Schema) -> str:
    notes = [words.format(_json(schema[name])) for name, words in _NOTES.items() if name in schema]
    notes += [_text(schema["description"])] if "description" in schema else []
    return f" <span class=note>{'; '.join(notes)}</span>" if notes else ""


def _or(values: Iterable[str]) -> str:
    return " or ".join(values)


def _text(text: str) -> str:
    """Return text in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _json(value: object) -> str:
    words = {True: "true", False: "false", None: "null"}
    plain = words[value] if isinstance(value, bool) or value is None else str(value)
    return escape(plain)
