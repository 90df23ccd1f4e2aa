"""A chat template as a function: messages in, text out, as transformers would render it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.contract import ModelUnusable


class Render(Protocol):
    """(messages as (role, content), with cue, tools) -> text, None if the template refuses these messages."""

    def __call__(  # noqa: D102
        self, messages: Sequence[tuple[str, str]], cue: bool, tools: Sequence[Any] = ()
    ) -> str | None: ...


def compile_template(source: str, constants: Mapping[str, str], specials: Sequence[str] = ()) -> Render:
    """Return a renderer as transformers builds one. `constants`: bos_token and the like.

    `specials`: strings of special tokens, which values shown as JSON must not spell.

    Raises ModelUnusable if the template does not parse.
    """

    def refuse(message: str) -> NoReturn:
        raise jinja2.exceptions.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **kwargs: _harmless(
        json.dumps(value, ensure_ascii=False, **kwargs), specials
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        template = environment.from_string(source)
    except jinja2.exceptions.TemplateError as error:
        raise ModelUnusable(f"the chat template does not parse: {error}") from error

    def render(messages: Sequence[tuple[str, str]], cue: bool, tools: Sequence[Any] = ()) -> str | None:
        shown = [{"role": role, "content": content} for role, content in messages]
        given = {"tools": list(tools)} if tools else {}
        try:
            return template.render(messages=shown, add_generation_prompt=cue, **constants, **given)
        except jinja2.exceptions.TemplateError:
            return None

    return render


def _harmless(text: str, specials: Sequence[str]) -> str:
    """Return JSON that says the same and spells no special token: the first character of each is escaped."""
    for special in specials:
        text = text.replace(special, f"\\u{ord(special[0]):04x}{special[1:]}")
    return text
