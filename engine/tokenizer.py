"""The tokenizer of a Hugging Face folder: text to ids and back, and the chat template as segments.

It reads tokenizer.json with the `tokenizers` library and the template with Jinja; transformers is
not needed. When it is loaded it encodes a sample conversation both ways and refuses a model whose segments
do not add up to the rendered whole.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import tool_texts, vocabularies
from engine.contract import ModelUnusable, RequestRefused
from engine.decoding import StreamDecoder
from engine.decoding_bytes import ByteDecoder
from engine.earlier import EarlierAnswers
from engine.models.folder import read_json
from engine.rendering import Render, compile_template
from engine.template import REASONING, ChatTemplate, Wrapper, learn, learn_head
from engine.template_calls import Call, EarlierCalls
from engine.token_contract import Decoder, Shown

_CACHED_HEADS = 256
_MARKS = frozenset(mark for pair in REASONING for mark in pair)
_ROLES = {"developer": "system"}
_SAMPLE = (("system", "Be brief.\n"), ("user", "Hi,  è 世 🙂"), ("assistant", "1 22\n\n"), ("user", "\tBye"))


class HubTokenizer:
    """`engine.token_contract.Tokenizer` over a fast Hugging Face tokenizer.

    `end_ids`: the ids that end an answer. `template_hash`: identifies vocabulary and template.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, Any],
        template: str,
        constants: Mapping[str, str],
        end_ids: frozenset[int],
    ) -> None:
        """`vocabulary`: the content of tokenizer.json. `constants`: bos_token and the like.

        Raises ModelUnusable if the template cannot be used in segments.
        """
        added = {entry["id"]: entry["content"] for entry in vocabulary["added_tokens"]}
        self.template_source = template
        """The chat template, as the folder has it."""
        self._render = render = compile_template(template, constants, vocabularies.visible(added))
        self._template = learn(render, added.values())
        specials = vocabularies.specials(vocabulary, self._template)
        self._special_text = re.compile(
            "|".join(map(re.escape, sorted(specials.values(), key=len, reverse=True)))
        )
        self._full = vocabularies.load(vocabulary)
        self._plain = vocabularies.load(vocabularies.without(vocabulary, specials))
        vocabularies.check_ids(self._full, added, {})
        vocabularies.check_ids(self._plain, added, specials)
        # what reasoning stands between is guarded, and yet part of the text
        silent = frozenset(i for i, content in specials.items() if content not in _MARKS)
        self._table = vocabularies.byte_table(vocabulary, self._full, added, silent)
        self._heads: OrderedDict[tuple[str | None, str], tuple[int, ...]] = OrderedDict()
        self._plain_head = self.template_ids(self._template.plain_head)
        self._cues = {
            choice: self.template_ids(cue)
            for choice, cue in (
                (None, self._template.cue),
                (True, self._template.thinking_cue),
                (False, self._template.brief_cue),
            )
        }
        self._close = self.template_ids(self._template.roles["assistant"].close)
        self.end_ids = end_ids | set(self._close[:1]) & specials.keys()
        self.template_hash = vocabularies.hash_of(vocabulary, template, constants)
        self._marked = vocabularies.byte_table(vocabulary, self._full, added, self.end_ids)
        answer = self._template.roles["assistant"]
        marks = {i: content for i, content in specials.items() if i not in self.end_ids and i in silent}
        self._earlier = {
            choice: EarlierAnswers(self, answer, cue, marks)
            for choice, cue in (
                (None, self._template.cue),
                (True, self._template.thinking_cue),
                (False, self._template.brief_cue),
            )
        }
        self._shows_tools = _shows_tools(render, self._template)
        user = self._template.roles["user"]
        before = f"{self._template.plain_head}{user.open}-{user.close}"
        self._calls = EarlierCalls(render, vocabularies.visible(added), before)
        self._check(render)

    @classmethod
    def load(cls, folder: Path) -> HubTokenizer:
        """Return the tokenizer of a model folder. Raises ModelUnusable naming the file that is wrong."""
        vocabulary = read_json(folder / "tokenizer.json")
        config = read_json(folder / "tokenizer_config.json")
        constants = {
            name: vocabularies.content(value)
            for name, value in config.items()
            if name.endswith("_token") and isinstance(vocabularies.content(value), str)
        }
        try:
            return cls(
                vocabulary,
                vocabularies.template_source(folder, config),
                constants,
                vocabularies.find_end_ids(folder, vocabulary, constants),
            )
        except ModelUnusable as error:
            raise ModelUnusable(f"{folder}: {error}") from error

    def head(self, instructions: str | None, tools: str = "") -> tuple[int, ...]:
        """Return the ids that every prompt with these system instructions begins with.

        `tools`: a JSON list of what the model may call, "" for none.
        """
        if instructions is None and not tools:
            return self._plain_head
        key = (instructions, tools)
        found = self._heads.get(key)
        if found is None:
            found = self._heads[key] = self._make_head(instructions, tools)
            if len(self._heads) > _CACHED_HEADS:
                self._heads.popitem(last=False)
        else:
            self._heads.move_to_end(key)
        return found

    def segment(self, role: str, text: str, calls: Sequence[Call] = ()) -> tuple[int, ...]:
        """Return the ids of one whole message. `calls`: (name, arguments) of an answer.

        A template that allows system text only at the beginning gets a later one as a user message; one without words
        for calls, and for what they gave, those of `engine.tool_texts`.
        """
        roles = self._template.roles
        if calls:
            return self._with_calls(text, calls)
        if role == "tool" and not ("tool" in roles and (self._calls.known or self._shows_tools)):
            return self._wrap(roles["user"], tool_texts.output(text))
        return self._wrap(roles[_ROLES.get(role, role)], text)

    def cue(self, thinking: bool | None = None) -> tuple[int, ...]:
        """Return the ids that ask the model for an answer; see `engine.token_contract.Tokenizer`."""
        if thinking is not None and not self.thinking_switch:
            always = bool(self._template.marks)
            if thinking is not always:
                raise RequestRefused(
                    f"this model {'always' if always else 'never'} reasons first", "thinking"
                )
        return self._cues[thinking]

    @property
    def reasons(self) -> bool:
        """Whether the template knows of reasoning."""
        return bool(self._template.marks) or self.thinking_switch

    @property
    def thinking_switch(self) -> bool:
        """Whether the template can be asked for an answer with reasoning, and for one without."""
        return self._template.thinking_cue != self._template.brief_cue

    @property
    def shows_tools(self) -> bool:
        """Whether the template has words for tools."""
        return self._shows_tools

    def vocabulary(self) -> dict[str, int]:
        """Return all tokens."""
        return self._full.get_vocab()

    def opens_with(self, thinking: bool | None) -> str:
        """Return the text of the cue."""
        cues = {None: self._template.cue, True: self._template.thinking_cue, False: self._template.brief_cue}
        return cues[thinking]

    def tail(self, emitted: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that close an answer: the end token if `emitted` lacks it, and what follows it."""
        if emitted and self._close and emitted[-1] == self._close[0]:
            return self._close[1:]
        return self._close

    def shown(self, emitted: Sequence[int], thinking: bool | None = None) -> Shown:
        """Return an answer as later prompts have it; see `engine.token_contract.Tokenizer`."""
        return self._earlier[thinking].shown(emitted)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text; special-token strings are not interpreted."""
        return tuple(self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        if self._table is not None:
            return self._table.decode(ids)
        return self._full.decode(list(ids), skip_special_tokens=True)

    def raw(self, token: int) -> bytes:
        """Return the bytes of one token, b"" of a special one. Other than byte-level vocabularies drop some spaces."""
        return self.decode((token,)).encode() if self._table is None else self._table[token]

    def decoder(self, *, marks: bool = False) -> Decoder:
        """Return a fresh decoder that skips special tokens. `marks`: only those that end an answer."""
        if self._table is None or self._marked is None:
            return StreamDecoder(self._full, silent=self.end_ids if marks else None)
        return ByteDecoder(self._marked if marks else self._table)

    def _with_calls(self, text: str, calls: Sequence[Call]) -> tuple[int, ...]:
        answer = self._template.roles["assistant"]
        text = answer.strip(text)
        around = self._calls.around(text, calls) if self._calls.known else None
        if around is None:
            return self._wrap(answer, tool_texts.with_calls(text, calls))
        return self._wrap(Wrapper(*around), text)

    def _make_head(self, instructions: str | None, tools: str) -> tuple[int, ...]:
        if not tools:
            return self._wrap(self._template.head, instructions or "")
        if not self._shows_tools:
            return self._wrap(self._template.head, tool_texts.with_tools(instructions, tools))
        plain, wrapper = learn_head(self._render, self._template, json.loads(tools))
        return self.template_ids(plain) if instructions is None else self._wrap(wrapper, instructions)

    def template_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of the template's own text; special-token strings are special tokens."""
        return tuple(self._full.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def _wrap(self, wrapper: Wrapper, text: str) -> tuple[int, ...]:
        text = wrapper.strip(text)
        if self._special_text.search(text):
            return self.template_ids(wrapper.open) + self.encode(text) + self.template_ids(wrapper.close)
        return self.template_ids(wrapper.open + text + wrapper.close)

    def _check(self, render: Render) -> None:
        """Compare segments with the whole. Raises ModelUnusable."""
        for sample in (_SAMPLE, _SAMPLE[1:]):
            whole = render(sample, True)
            if whole is None:
                continue  # a template without system role
            system = sample[0][1] if sample[0][0] == "system" else None
            messages = sample if system is None else sample[1:]
            parts = self.head(system) + tuple(i for m in messages for i in self.segment(*m)) + self.cue()
            if parts != self.template_ids(whole):
                raise ModelUnusable(
                    "the chat template is not append-only: encoding by messages changes the ids"
                )
        self._heads.clear()


def _shows_tools(render: Render, template: ChatTemplate) -> bool:
    function = {"name": "probe", "description": "-", "parameters": {"type": "object", "properties": {}}}
    try:
        learn_head(render, template, [{"type": "function", "function": function}])
    except ModelUnusable:
        return False
    return True
