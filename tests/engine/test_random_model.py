"""The tool that writes models of DeepSeek-V3's architecture: any size, the real names, one line for what cannot be."""

import json
from dataclasses import replace

import pytest

from chatserver.__main__ import main
from engine.contract import ModelUnusable
from engine.models import folder
from engine.models.deepseek import Dimensions
from engine.models.deepseek_weights import recipe, shapes_of
from engine.models.tiny_deepseek import write

SMALL = Dimensions(
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    q_lora_rank=24,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=6,
    n_routed_experts=6,
    n_shared_experts=2,
    num_experts_per_tok=3,
    n_group=3,
    max_position_embeddings=1024,
    rope_factor=4,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size: expected a whole number from 1"),
        ({"num_attention_heads": -4}, "num_attention_heads: expected a whole number from 1"),
        ({"vocab_size": 1000}, "vocab_size: expected at least 49152"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace: expected less than num_hidden_layers"),
        ({"num_nextn_predict_layers": 2}, "num_nextn_predict_layers: expected 0 or 1"),
        ({"qk_rope_head_dim": 15}, "qk_rope_head_dim: expected an even number"),
        ({"n_group": 3}, "n_group: 16 experts cannot be divided among 3 groups"),
        ({"n_group": 16, "topk_group": 16}, "n_group: expected at least 2 experts a group"),
        ({"topk_group": 5}, r"topk_group: expected at most n_group \(4\), got 5"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok: expected at most 8"),
        ({"rope_factor": 3}, "rope_factor: expected a divisor of max_position_embeddings"),
        ({"torch_dtype": "int8"}, "torch_dtype: expected one of float32, bfloat16, got 'int8'"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_field(changes, message):
    """Nothing is written before all dimensions fit each other."""
    with pytest.raises(ModelUnusable, match=f"^{message}") as refused:
        replace(Dimensions(), **changes)
    assert "\n" not in str(refused.value)


def test_the_command_writes_and_refuses(tmp_path, capsys):
    """Flags are the keys of config.json; an existing folder of something else is never touched."""
    target = tmp_path / "model"
    few = ["--num-hidden-layers", "2", "--hidden-size", "32", "--num-nextn-predict-layers", "0"]
    assert main(["random-model", str(target), *few]) == 0
    assert f"make serve MODEL={target}" in capsys.readouterr().out
    config = json.loads((target / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (2, 32)
    folder.check(target)
    made = (target / "config.json").stat().st_mtime_ns
    assert main(["random-model", str(target), *few]) == 0  # the same again: it is there
    assert (target / "config.json").stat().st_mtime_ns == made
    capsys.readouterr()
    assert main(["random-model", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["random-model", str(tmp_path / "other"), "--n-group", "5"]) == 2
    assert capsys.readouterr().err == "chatserver: n_group: 16 experts cannot be divided among 5 groups\n"
    assert not (tmp_path / "other").exists()


def test_a_model_too_large_for_the_disk_is_refused(tmp_path):
    """With what it needs, before anything is written."""
    with pytest.raises(ModelUnusable, match="MB free, preparing the model needs"):
        write(tmp_path / "huge", Dimensions(hidden_size=2**20, num_hidden_layers=61), lambda *progress: None)
    assert not (tmp_path / "huge").exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a model with unlike dimensions everywhere, so that no two can be mistaken for each other."""
    return write(tmp_path_factory.mktemp("models") / "small", SMALL, lambda *progress: None)


def test_transformers_finds_every_tensor_and_no_other(small):
    """Names and shapes are DeepSeek's: nothing is missing or left over but the draft layer, which SGLang loads."""
    from transformers import AutoModelForCausalLM

    _, loaded = AutoModelForCausalLM.from_pretrained(str(small), output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["mismatched_keys"]
    draft = f"model.layers.{SMALL.num_hidden_layers}."
    assert loaded["unexpected_keys"]
    assert all(name.startswith(draft) for name in loaded["unexpected_keys"])


def test_the_draft_layer_shares_both_ends(small):
    """Its copies of embedding and head are the model's own, as in DeepSeek's checkpoint; its seam is there."""
    import torch
    from safetensors import safe_open

    places = json.loads((small / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(places) == set(shapes_of(SMALL))

    def read(name: str) -> torch.Tensor:
        with safe_open(small / places[name], "pt") as file:
            return file.get_tensor(name)

    draft = f"model.layers.{SMALL.num_hidden_layers}."
    assert torch.equal(read(f"{draft}embed_tokens.weight"), read("model.embed_tokens.weight"))
    assert torch.equal(read(f"{draft}shared_head.head.weight"), read("lm_head.weight"))
    assert read(f"{draft}eh_proj.weight").shape == (32, 64)
    assert read("model.layers.1.mlp.gate.e_score_correction_bias").std() > 0.01
    assert read("model.layers.1.self_attn.kv_a_layernorm.weight").std() > 0.01


def test_the_same_seed_makes_the_same_weights():
    """And another seed others; in the type that was asked for."""

    def layer(dimensions: Dimensions) -> bytes:
        return recipe("model", dimensions, "").parts[2].make()

    assert layer(SMALL) == layer(SMALL)
    assert layer(SMALL) != layer(replace(SMALL, seed=1))
    assert len(layer(replace(SMALL, torch_dtype="bfloat16"))) < 0.7 * len(layer(SMALL))
