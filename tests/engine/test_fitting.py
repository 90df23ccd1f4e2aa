"""Parts of a model folder that do not belong together are told from headers, in one line that names the file."""

import json
from pathlib import Path

import pytest

from engine.contract import ModelUnusable
from engine.models import fitting, folder


@pytest.fixture
def copy(tiny_deepseek, tmp_path):
    """Return a function that makes a copy of the tiny model with other values in its config.json."""

    def make(**changes) -> Path:
        path = tmp_path / "model"
        path.mkdir()
        for file in tiny_deepseek.iterdir():
            (path / file.name).symlink_to(file)
        config = json.loads((tiny_deepseek / "config.json").read_text())
        (path / "config.json").unlink()
        (path / "config.json").write_text(json.dumps(config | changes))
        return path

    return make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["NoSuchForCausalLM"]}, "does not serve the architecture NoSuchForCausalLM"),
        ({"architectures": ["DeepseekV3ForCausalLN"]}, "did you mean DeepseekV3ForCausalLM"),
        ({"architectures": ["BertModel"]}, "BertModel does not write text"),
        ({"architectures": "LlamaForCausalLM"}, "names no architectures"),
        ({"vocab_size": 1000}, "tokenizer.json has ids up to 49151, the model a vocabulary of 1000"),
        ({"vocab_size": 60000}, r"are \[60000, 128\], model.embed_tokens.weight is \[49152, 128\]"),
        ({"hidden_size": 256}, r"are \[49152, 256\]"),
        ({"num_hidden_layers": 8}, r"num_hidden_layers is 8, the weights hold \d;"),
    ],
)
def test_what_does_not_fit_is_named(copy, changes, message):
    """SGLang would say so in words of its own after a minute, or not at all."""
    with pytest.raises(ModelUnusable, match=message) as error:
        folder.check(copy(**changes))
    assert "\n" not in str(error.value)


def test_the_tiny_model_fits(copy):
    """As it is, and with a draft layer that its weights do not count as one of the model's."""
    folder.check(copy())


def test_other_forms(tmp_path):
    """A list of pieces is a vocabulary too; without one the file is no tokenizer; unknown shapes are let through."""
    with pytest.raises(ModelUnusable, match="ids up to 2, the model a vocabulary of 2"):
        fitting.check_vocabulary(
            tmp_path, {"vocab_size": 2}, {"model": {"vocab": [["a", 0], ["b", 0], ["c", 0]]}}
        )
    for tokenizer in ({}, {"model": []}, {"model": {"vocab": {}}}):
        with pytest.raises(ModelUnusable, match="has no vocabulary"):
            fitting.check_vocabulary(tmp_path, {}, tokenizer)
    fitting.check_shapes(tmp_path, {"num_hidden_layers": 2}, {"transformer.h.0.attn.weight": [1, 2]})


def test_what_sglang_serves():
    """Read from its files: the two families that are proven here, and those that only transformers has."""
    served = fitting.served_architectures()
    assert served is not None
    assert {"LlamaForCausalLM", "DeepseekV3ForCausalLM"} <= served
    assert len(served) > 150
    fitting.check_architecture(Path("config.json"), {"architectures": ["BloomForCausalLM"]})
    fitting.check_architecture(
        Path("config.json"), {"architectures": ["Mine"], "auto_map": {"AutoModel": "mine.Mine"}}
    )
