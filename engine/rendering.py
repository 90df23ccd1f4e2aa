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
    """(messages, with cue, tools, thinking) -> text, None if the template refuses these messages.

    A message: (role, content), or an object as the template wants it.
    """

    def __call__(  # noqa: D102
        self,
        messages: Sequence[tuple[str, str] | Mapping[str, Any]],
        cue: bool,
        tools: Sequence[Any] = (),
        thinking: bool | None = None,
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
    environment.filters["tojson"] = lambda value, **kwargs: harmless(
        json.dumps(value, ensure_ascii=False, **kwargs), specials
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        template = environment.from_string(source)
    except jinja2.exceptions.TemplateError as error:
        raise ModelUnusable(f"the chat template does not parse: {error}") from error

    def render(
        messages: Sequence[tuple[str, str] | Mapping[str, Any]],
        cue: bool,
        tools: Sequence[Any] = (),
        thinking: bool | None = None,
    ) -> str | None:
        shown = [
            dict(zip(("role", "content"), m, strict=True)) if isinstance(m, tuple) else m for m in messages
        ]
        given: dict[str, Any] = {"tools": list(tools)} if tools else {}
        if thinking is not None:  # what DeepSeek's templates call it, and Qwen's and most others
            given |= {"thinking": thinking, "enable_thinking": thinking}
        try:
            return template.render(messages=shown, add_generation_prompt=cue, **constants, **given)
        except (jinja2.exceptions.TemplateError, TypeError):  # or it wanted a value of another type
            return None

    return render


def harmless(text: str, specials: Sequence[str]) -> str:
    """Return JSON that says the same and spells no special token: the first character of each is escaped."""
    for special in specials:
        text = text.replace(special, f"\\u{ord(special[0]):04x}{special[1:]}")
    return text
