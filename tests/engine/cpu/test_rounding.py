"""Weights that fit no smaller form: exact unless 8 bits are asked for, and then as good as exact."""

import shutil

import pytest
import torch

from engine.cpu.packing import Form, pack, pack_chosen, round_to_eight, unpack
from tests.engine.cpu.reordered import matrices, perplexity, reordered
from tests.engine.cpu.test_packing import blocks_of_four
from tests.engine.served import Served

# The beginning of "Pride and Prejudice" (Jane Austen, 1813), and of "Moby-Dick" (Herman Melville, 1851).
TEXT = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a \
wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, \
this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful \
property of some one or other of their daughters. "My dear Mr. Bennet," said his lady to him one day, "have you \
heard that Netherfield Park is let at last?" Mr. Bennet replied that he had not. "But it is," returned she; "for \
Mrs. Long has just been here, and she told me all about it." Mr. Bennet made no answer. "Do not you want to know \
who has taken it?" cried his wife impatiently. "You want to tell me, and I have no objection to hearing it." \
This was invitation enough.

Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and \
nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of the \
world. It is a way I have of driving off the spleen, and regulating the circulation. Whenever I find myself \
growing grim about the mouth; whenever it is a damp, drizzly November in my soul; whenever I find myself \
involuntarily pausing before coffin warehouses, and bringing up the rear of every funeral I meet; and especially \
whenever my hypos get such an upper hand of me, that it requires a strong moral principle to prevent me from \
deliberately stepping into the street, and methodically knocking people's hats off, then, I account it high time \
to get to sea as soon as I can.
"""


@pytest.fixture
def weight() -> torch.Tensor:
    """Return weights that fit no block."""
    return torch.randn(300, 96)


def test_weights_are_exact_unless_asked(weight, monkeypatch):
    """Without a choice nothing is rounded."""
    monkeypatch.delenv("ENGINE_WEIGHTS", raising=False)
    before = weight.clone()
    assert pack_chosen(weight).form == Form.FULL
    assert torch.equal(weight, before)


def test_int8_rounds_what_fits_nothing_else(weight, monkeypatch):
    """Each weight moves by half a step of its block at most, and the given weights become what was stored."""
    monkeypatch.setenv("ENGINE_WEIGHTS", "int8")
    before = weight.clone()
    packed = pack_chosen(weight)
    assert packed.form == Form.EIGHT
    assert torch.equal(unpack(packed), weight)
    steps = before.view(300, 3, 32).abs().amax(-1, keepdim=True) / 127
    assert ((weight - before).view(300, 3, 32).abs() <= 0.51 * steps).all()


def test_int8_leaves_alone_what_packs_exactly(monkeypatch):
    """4-bit blocks stay 4-bit blocks; columns that fill no block stay as they are."""
    monkeypatch.setenv("ENGINE_WEIGHTS", "int8")
    assert pack_chosen(blocks_of_four(300, 96)).form == Form.FOUR
    assert pack_chosen(torch.randn(20, 50)).form == Form.FULL


def test_an_unknown_choice_is_refused(weight, monkeypatch):
    """The message names the variable and what it can be."""
    monkeypatch.setenv("ENGINE_WEIGHTS", "int3")
    with pytest.raises(ValueError, match="ENGINE_WEIGHTS: expected exact or int8, got 'int3'"):
        pack_chosen(weight)


def test_int8_keeps_the_perplexity(smollm2):
    """On a fixed text, within 1 % of the weights that were rounded."""
    from transformers import AutoTokenizer

    model = reordered(smollm2)
    assert pack(model.model.layers[3].mlp.down_proj.weight).form == Form.FULL
    ids = AutoTokenizer.from_pretrained(str(smollm2))(TEXT)["input_ids"]
    exact = perplexity(model, ids)
    for weight in matrices(model):
        weight.data.copy_(unpack(round_to_eight(weight)))
    assert abs(perplexity(model, ids) / exact - 1) < 0.01


@pytest.mark.sglang
async def test_int8_answers_equal_transformers_on_the_rounded_weights(smollm2, tmp_path):
    """Through the engine, alone and in a batch, on six layers whose weights fit no block."""
    from transformers import AutoTokenizer

    model = reordered(smollm2)
    model.model.layers = model.model.layers[:6]
    model.config.num_hidden_layers = 6
    model.config.layer_types = None
    folder = tmp_path / "model"
    model.generation_config = type(model.generation_config)(eos_token_id=2)  # without what is for sampling
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(smollm2 / name, folder)
    ids = AutoTokenizer.from_pretrained(str(smollm2))(TEXT)["input_ids"]
    counts = (len(ids), len(ids), 200, 9)
    asked = [{"ids": ids[:count], "max_tokens": 24} for count in counts]
    engine = await Served.start(
        tmp_path / "log",
        environ={"ENGINE_WEIGHTS": "int8"},
        model_path=folder,
        kv_tokens=2048,
        context=1024,
        max_running=4,
    )
    answers = [*await engine.ask(asked[0]), *await engine.ask(*asked[1:])]
    await engine.close()
    for weight in matrices(model):
        weight.data.copy_(unpack(round_to_eight(weight)))
    theirs = []
    for count in counts:
        given = torch.tensor([ids[:count]])
        out = model.generate(given, max_new_tokens=24, min_new_tokens=24, do_sample=False)
        theirs.append(out[0, count:].tolist())
    assert [answer["ids"] for answer in answers] == theirs
