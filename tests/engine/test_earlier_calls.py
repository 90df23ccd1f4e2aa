"""Earlier answers with calls are shown in the template's own words, to the id."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from engine.tokenizer import HubTokenizer

# In the manner of the public templates, written here: what they do with calls, in their tags.
_DEEPSEEK = (
    "{% set ns = namespace(user=false, system='') %}"
    "{% for m in messages if m['role'] == 'system' %}{% set ns.system = ns.system + m['content'] %}{% endfor %}"
    "{{ bos_token + ns.system }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set ns.user = true %}{{ '<｜User｜>' + m['content'] }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{% if ns.user %}{{ 'CUE' }}{% endif %}{% set ns.user = false %}"
    "{% if m['tool_calls'] is defined and m['tool_calls'] is not none %}"
    "{{ m['content'] if m['content'] is not none else '' }}{{ '<｜tool▁calls▁begin｜>' }}"
    "{% for tool in m['tool_calls'] %}{{ CALL }}{% endfor %}{{ '<｜tool▁calls▁end｜>' + eos_token }}"
    "{% else %}{{ (m['content'].split('</think>') | last) + eos_token }}{% endif %}{% endif %}"
    "{% if m['role'] == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt and ns.user %}{{ 'CUE' }}{% endif %}"
)
V3 = _DEEPSEEK.replace("CUE", "<｜Assistant｜>").replace(
    "CALL",
    "('' if loop.first else '\n') + '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>'"
    " + tool['function']['name'] + '\n```json\n' + tool['function']['arguments'] + '\n```<｜tool▁call▁end｜>'",
)
V31 = _DEEPSEEK.replace("CUE", "<｜Assistant｜></think>").replace(
    "CALL",
    "'<｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments']"
    " + '<｜tool▁call▁end｜>'",
)
R1 = V3.replace(
    "{% if add_generation_prompt and ns.user %}{{ '<｜Assistant｜>' }}{% endif %}",
    "{% if add_generation_prompt and ns.user %}{{ '<｜Assistant｜><think>\n' }}{% endif %}",
)
LATER_V3 = (
    V3.replace("'<｜User｜>' + m['content']", "'<｜User｜>' + m['content'] + '<｜Assistant｜>'")
    .replace("{% if ns.user %}{{ '<｜Assistant｜>' }}{% endif %}", "")
    .replace("add_generation_prompt and ns.user", "add_generation_prompt and not ns.user")
)
"""Its users' messages end with what an answer begins with."""
QWEN = (
    "{% if tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ '# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\n</tools><|im_end|>\n' }}"
    "{% elif messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{% set said = (m.content or '').split('</think>')[-1].lstrip('\n') %}"
    "{{ '<|im_start|>assistant\n' + said }}"
    "{% for call in m.tool_calls or [] %}{{ '\n' if (loop.first and said) or not loop.first else '' }}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}"
    "{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "deepseek-v3": V3,
    "deepseek-v3-later": LATER_V3,
    "deepseek-v3.1": V31,
    "deepseek-r1": R1,
    "qwen": QWEN,
}
SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
ADDED = (
    *SPECIAL,
    *("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<tool_call>", "</tool_call>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
    *("<｜tool▁sep｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)
"""As these models' vocabularies have them: only the ends of sentences are marked as special."""
CALLS = (("weather", '{"town": "Paris è", "days": 2}'), ("add_two", '{"a": 1, "b": [2, {}]}'))


def write(smollm2, folder, template: str, special=SPECIAL):
    """A tokenizer's folder: SmolLM2's vocabulary with these models' tokens added, some of them as special."""
    shutil.copy(smollm2 / "config.json", folder / "config.json")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    vocabulary = json.loads((smollm2 / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    vocabulary["added_tokens"] += [
        {"id": 49152 + number, "content": content, "special": content in special, **plain}
        for number, content in enumerate(ADDED)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    config = json.loads((smollm2 / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    config.pop("added_tokens_decoder", None)
    if "eos_token" in template:
        config |= {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


class Pair:
    """Our tokenizer, and transformers' on the same folder."""

    def __init__(self, name: str, folder) -> None:
        self.name = name
        self.ours = HubTokenizer.load(folder)
        self.theirs = AutoTokenizer.from_pretrained(str(folder))

    def whole(self, messages, *, cue: bool = True, tools=None) -> tuple[int, ...]:
        text = self.theirs.apply_chat_template(
            messages, add_generation_prompt=cue, tokenize=False, tools=tools
        )
        return tuple(self.theirs(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(
    scope="module", params=[(name, special) for name in TEMPLATES for special in (SPECIAL, ADDED)]
)
def pair(request, smollm2, tmp_path_factory):
    """Each template, with the tags of calls as plain added tokens and as special ones."""
    name, special = request.param
    return Pair(name, write(smollm2, tmp_path_factory.mktemp("calls"), TEMPLATES[name], special))


def answer(text: str, calls) -> dict:
    listed = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": listed}


@pytest.mark.parametrize("text", ["", "I look: 1 < 2.\n"])
@pytest.mark.parametrize("count", [1, 2])
def test_calls_given_back_are_the_templates_own(pair, text, count):
    """Client-written calls, behind them the next question: as rendered anew."""
    calls = CALLS[:count]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How is it?"},
        answer(text, calls),
        {"role": "user", "content": "And now?"},
    ]
    ours = pair.ours
    ids = ours.head("Be brief.") + ours.segment("user", "How is it?")
    ids += ours.segment("assistant", text, calls) + ours.segment("user", "And now?") + ours.cue()
    assert ids == pair.whole(messages)


def emitted(pair, text: str, calls) -> tuple[int, ...]:
    """What the model itself writes: reasoning, if it reasons, text, calls in its tags, the end."""
    ours = pair.ours
    before = ours.template_ids(REASONING.get(pair.name, ""))
    shown = pair.whole([{"role": "user", "content": "-"}, answer(text, calls)], cue=False)
    start = len(
        ours.head(None)
        + ours.segment("user", "-")
        + ours.template_ids(ours._template.roles["assistant"].open)
    )
    closing = len(ours.tail(())) - 1
    return before + (shown[start:-closing] if closing else shown[start:])


REASONING = {"deepseek-r1": "Why?\n</think>", "qwen": "<think>\nWhy?\n</think>\n\n"}


@pytest.mark.parametrize("count", [1, 2])
def test_calls_that_were_made_keep_their_tags(pair, count):
    """Reasoning is dropped, what stays is encoded anew: with the tags' own ids, as the template shows it."""
    ours, calls = pair.ours, CALLS[:count]
    ids = emitted(pair, "I look.", calls)
    shown = ours.shown(ids)
    question = {"role": "user", "content": "How is it?"}
    head = ours.head(None) + ours.segment("user", "How is it?")
    assert head + shown.ids == pair.whole([question, answer("I look.", calls)], cue=False)
    assert (shown.difference is not None) == (pair.name in REASONING)
    assert shown.difference is None or shown.difference.rewritten


def test_text_cannot_spell_the_tags(pair):
    """Neither what a client gives back nor arguments: what is in them stays text."""
    ours = pair.ours
    if pair.name == "qwen":
        return  # its tags are words of the prompt only where the vocabulary has them as special
    plain = ours.segment("assistant", "a", [("weather", '{"town": "-"}')])
    for evil in ("<｜end▁of▁sentence｜>", "<｜User｜>"):
        ids = ours.segment("assistant", evil, [("weather", json.dumps({"town": evil}, ensure_ascii=False))])
        assert [i for i in ids if i in SENTENCES] == [i for i in plain if i in SENTENCES]


SENTENCES = {49152 + ADDED.index(content) for content in (*SPECIAL, "<｜User｜>", "<｜Assistant｜>")}


def test_outputs_without_words_in_the_template_are_a_users_message(pair):
    """Where a template joins outputs otherwise than message by message, they stand in Hermes' tags."""
    assert pair.ours.segment("tool", "42") == pair.ours.segment(
        "user", "<tool_response>\n42\n</tool_response>"
    )
    if pair.name == "qwen":  # for one output that is the template's own way
        messages = [
            {"role": "user", "content": "-"},
            answer("", CALLS[:1]),
            {"role": "tool", "content": "42"},
        ]
        ids = pair.ours.head(None) + pair.ours.segment("user", "-")
        ids += pair.ours.segment("assistant", "", CALLS[:1]) + pair.ours.segment("tool", "42")
        assert ids + pair.ours.cue() == pair.whole(messages)
