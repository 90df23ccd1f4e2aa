"""A chat template taken apart: from one Jinja template to an opening and a closing text for each role.

The template is rendered with marks as contents; the text between two marks is a *joint*:

    <|im_start|>system\\n S <|im_end|>\\n<|im_start|>user\\n U <|im_end|>\\n<|im_start|>assistant\\n A ...
                          └───── joint(system → user) ─────┘

Each joint is cut in two, `close(before) + open(after)`, where a special token starts: no token spans
the cut, so messages can be encoded one by one. A template whose joints do not fit together (it shows
a message differently when more messages follow) is not append-only and is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.contract import ModelUnusable
from engine.rendering import Render

REASONING = (("<think>", "</think>"), ("◁think▷", "◁/think▷"))
"""What reasoning stands between, as in SGLang's reasoning parsers."""

_MARK = "\u2042{}\u2042"
_CUE = "cue"
_LATER_SYSTEM = (("user", "system", "user"), ("user", "assistant", "system", "user"))
_REPEATS = (("user", "user"), ("user", "assistant", "assistant"))
_TOOL_ORDERS = (
    ("user", "assistant", "tool", "tool", "user"),
    ("user", "assistant", "tool", "assistant"),
    ("user", "assistant", "tool"),
)
_STRIPPED = (("\n\n ", ""), (" ", "\n"), ("", " \t\r\n\f\v"))
"""(what is left of two line breaks and a space before a text, what was stripped)."""
_BEFORE: Mapping[str, tuple[str, ...]] = {
    "user": (),
    "assistant": ("user",),
    "system": ("user",),
    "tool": ("user", "assistant"),
}
"""What must come before a message of a role for a strict template to take it."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How the template drops the reasoning of earlier answers: all up to `end`, the last one of several if `last`.

    `left`, `right`: characters that it then strips from the rest.
    """

    start: str
    end: str
    last: bool
    left: str
    right: str

    def drop(self, text: str) -> str:
        """Return what the template shows of `text`."""
        if self.end not in text:
            return text
        rest = text.rsplit(self.end, 1)[1] if self.last else text.split(self.end, 1)[1]
        rest = rest.lstrip(self.left) if self.left else rest
        return rest.rstrip(self.right) if self.right else rest


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What the template puts around one content, and what it takes away from the content first."""

    open: str
    close: str
    lstrip: bool = False
    rstrip: bool = False
    reasoning: Reasoning | None = None

    def strip(self, text: str) -> str:
        """Return `text` as the template shows it."""
        if self.reasoning is not None:
            text = self.reasoning.drop(text)
        if self.lstrip:
            text = text.lstrip()
        return text.rstrip() if self.rstrip else text


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The texts of a template.

    `plain_head`: what a prompt without system text begins with. `head`: around system text at the
    beginning. `roles`: around the messages. `cue`: asks for an answer; `thinking_cue`, `brief_cue`: for one with
    reasoning and without.
    """

    plain_head: str
    head: Wrapper
    roles: Mapping[str, Wrapper]
    cue: str
    thinking_cue: str
    brief_cue: str

    @property
    def marks(self) -> tuple[str, ...]:
        """Return what earlier reasoning stands between."""
        reasoning = self.roles["assistant"].reasoning
        return (reasoning.start, reasoning.end) if reasoning else ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Return every text of the template itself."""
        wrappers = (self.head, *self.roles.values())
        around = [text for wrapper in wrappers for text in (wrapper.open, wrapper.close)]
        return (self.plain_head, self.cue, self.thinking_cue, self.brief_cue, *around, *self.marks)


def learn(render: Render, specials: Iterable[str]) -> ChatTemplate:
    """Return the parts of a template. `specials`: strings of special tokens.

    Raises ModelUnusable if it is not append-only or has nowhere to cut.
    """
    return _Probe(render, tuple(specials)).learn()


def learn_head(render: Render, template: ChatTemplate, tools: Sequence[Any]) -> tuple[str, Wrapper]:
    """Return what a prompt with these tools begins with: without system text, and around it.

    Raises ModelUnusable if the template shows no tools.
    """
    probe = _Probe(render, (), tools)
    user = template.roles["user"].open
    plain, within = probe.between(("user",)), probe.between(("system", "user"))
    if not plain or not within or plain[0] == template.plain_head + user:
        raise ModelUnusable("the chat template shows no tools")
    wrapper = replace(template.head, open=within[0], close=within[1].removesuffix(user))
    return plain[0].removesuffix(user), wrapper


class _Probe:
    """Renders marked conversations and cuts what is between the marks."""

    def __init__(self, render: Render, specials: tuple[str, ...], tools: Sequence[Any] = ()) -> None:
        self._render = render
        self._specials = specials
        self._tools = tools

    def learn(self) -> ChatTemplate:
        joints = self._joints()
        # Two of a role in a row are joined as others are, if the template does it otherwise: DeepSeek's do, whose
        # assistant has an opening behind a user alone. Tools' messages that do not fit are shown in our own words.
        for roles in _REPEATS:
            joints = self._with(joints, [roles, ("user", "assistant", *roles)])
        joints = self._with(joints, _TOOL_ORDERS)
        roles = {role for role, _ in joints}
        closes = {role: self._close(role, joints) for role in roles}
        opens = self._opens(joints, closes)
        plain = self.between(("user",))[0].removesuffix(opens["user"])
        wrappers = {role: self._wrapper(role, opens[role], closes[role]) for role in roles & opens.keys()}
        wrappers["assistant"] = replace(wrappers["assistant"], reasoning=self._reasoning())
        # A template that collects system texts at the beginning has no place for later ones.
        wrappers.setdefault("system", wrappers["user"])
        cues = [self._cue(opens[_CUE], thinking) for thinking in (True, False)]
        return ChatTemplate(plain, self._head(plain, opens["user"]), wrappers, opens[_CUE], *cues)

    def _joints(self) -> dict[tuple[str, str], str]:
        """Return (role, next role or cue) -> text between them, for all pairs that the template allows."""
        joints: dict[tuple[str, str], str] = {}
        later = _LATER_SYSTEM if all(self._in_order(roles) for roles in _LATER_SYSTEM) else ()
        for prefix in ((), ("user", "assistant")):
            for roles in (("user", "assistant", "user"), *later):
                self._note_joints(joints, (*prefix, *roles))
        for needed in (("user", "assistant"), ("assistant", "user"), ("user", _CUE)):
            if needed not in joints:
                raise ModelUnusable(f"the chat template does not allow {needed[1]} after {needed[0]}")
        return joints

    def _with(
        self, joints: dict[tuple[str, str], str], orders: Iterable[tuple[str, ...]]
    ) -> dict[tuple[str, str], str]:
        """Return the joints with those of more orders, if these fit; else as they are."""
        found = dict(joints)
        try:
            for roles in orders:
                self._note_joints(found, roles)
            self._opens(found, {role: self._close(role, found) for role, _ in found})
        except ModelUnusable:
            return joints
        return found

    def _note_joints(self, joints: dict[tuple[str, str], str], roles: tuple[str, ...]) -> None:
        between = self.between(roles, cue=True)
        if not between:
            return
        for pair, text in zip(zip(roles, (*roles[1:], _CUE), strict=True), between[1:], strict=True):
            if joints.setdefault(pair, text) != text:
                raise ModelUnusable(
                    f"the chat template is not append-only: it joins {pair[0]} and {pair[1]} "
                    f"once as {joints[pair]!r} and once as {text!r}"
                )

    def between(self, roles: tuple[str, ...], cue: bool = False) -> list[str]:
        """Return the texts before, between and after the marks; empty if the template refuses."""
        marks = [_MARK.format(i) for i in range(len(roles))]
        text = self._render(list(zip(roles, marks, strict=True)), cue, self._tools)
        if text is None:
            return []
        parts = []
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found:
                return []
            parts.append(before)
        return [*parts, text]

    def _in_order(self, roles: tuple[str, ...]) -> bool:
        return bool(self.between(roles, cue=True))

    def _cue(self, usual: str, thinking: bool) -> str:
        """Return what asks for an answer with or without reasoning; the usual cue if the template does not care."""
        one, other = (self._render([("user", "-")], True, (), choice) or "" for choice in (thinking, None))
        before = other.removesuffix(usual)
        return one.removeprefix(before) if before != other and one.startswith(before) else usual

    def _close(self, role: str, joints: Mapping[tuple[str, str], str]) -> str:
        """Return what ends a message of `role`, whatever follows.

        That is what stands after a last message, if a special token follows it everywhere; else the
        longest beginning that all joints share and that a special token follows.
        """
        after = [text for (before, _), text in joints.items() if before == role]
        last = self.between((*_BEFORE[role], role))
        if last and all(text.startswith(last[-1]) and len(last[-1]) in self._starts(text) for text in after):
            return last[-1]
        common = os.path.commonprefix(after)  # noqa: RUF071 — by characters is what is meant
        cut = max((i for text in after for i in self._starts(text) if i <= len(common)), default=None)
        if cut is None:
            raise ModelUnusable(
                f"the chat template has no special token after a message of {role}: {after[0]!r}"
            )
        return common[:cut]

    def _opens(self, joints: Mapping[tuple[str, str], str], closes: Mapping[str, str]) -> dict[str, str]:
        """Return what begins a message of each role (and an answer), whatever came before."""
        opens: dict[str, str] = {}
        for (before, after), text in joints.items():
            rest = text.removeprefix(closes[before])
            if opens.setdefault(after, rest) != rest:
                raise ModelUnusable(
                    f"the chat template is not append-only: it begins {after} once with {opens[after]!r} "
                    f"and once with {rest!r}"
                )
            if 0 not in self._starts(rest):
                raise ModelUnusable(
                    f"the chat template begins {after} with {rest!r}, which is no special token"
                )
        return opens

    def _head(self, plain: str, user_open: str) -> Wrapper:
        between = self.between(("system", "user"))
        if not between:  # no system role: such models take the text as part of the head
            return Wrapper(plain, "")
        if not between[1].endswith(user_open):
            raise ModelUnusable(
                f"the chat template begins user after system with {between[1]!r}, expected {user_open!r}"
            )
        return self._wrapper("system", between[0], between[1].removesuffix(user_open))

    def _wrapper(self, role: str, opening: str, closing: str) -> Wrapper:
        """Find out whether the template strips contents of `role`."""
        mark = _MARK.format(role)
        roles = (
            {**_BEFORE, "system": (), "user": ()}[role] + (role,) + (("user",) if role == "system" else ())
        )
        messages = [(r, f" \n{mark}\n " if r == role else "-") for r in roles]
        text = self._render(messages, True) or ""
        return Wrapper(opening, closing, f" \n{mark}" not in text, f"{mark}\n " not in text)

    def _reasoning(self) -> Reasoning | None:
        """Find out whether the template drops the reasoning of an earlier answer, and what it strips with it."""
        marks = [_MARK.format(i) for i in range(3)]
        for start, end in REASONING:
            text = self._earlier(end.join(marks))
            if marks[2] not in text or marks[0] in text:
                continue
            spaced = self._earlier(f"{marks[0]}{end}\n\n {marks[1]} \n\n")
            before, _, after = spaced.partition(marks[1])
            left = next((c for shown, c in _STRIPPED if before.endswith(shown)), "")
            right = next((c for shown, c in _STRIPPED if after.startswith(shown[::-1])), "")
            return Reasoning(start, end, marks[1] not in text, left, right)
        return None

    def _earlier(self, content: str) -> str:
        """Return a rendering in which `content` is an earlier answer."""
        return self._render([("user", "-"), ("assistant", content), ("user", "-")], True) or ""

    def _starts(self, text: str) -> set[int]:
        """Return where special tokens start in `text`."""
        return {i for special in self._specials for i in range(len(text)) if text.startswith(special, i)}
