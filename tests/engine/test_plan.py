"""The arithmetic of memory: parameter by parameter as transformers has them, byte by byte as worked out by hand."""

from dataclasses import replace

import pytest

from engine.architecture import Architecture, Split, architecture
from engine.contract import ModelUnusable
from engine.models import smollm2
from engine.models.deepseek import Dimensions
from engine.parallelism import Parallelism, ProfileRefused
from engine.plan import (
    GIB,
    MIB,
    RUNTIME,
    Ask,
    default_ask,
    default_spread,
    made_for,
    of_profile,
    plan,
    static_fraction,
)
from engine.profile import load
from engine.published.tables import GPUS, MODELS, RATES, Gpu, config
from engine.remedies import remedies

DEEPSEEK = architecture(config("deepseek-v3"))
SMALL = architecture(config("smollm2-135m-instruct"))
H200, H800, L4 = GPUS["H200"], GPUS["H800"], GPUS["L4"]


def default(model: Architecture, gpu: Gpu, count: int, context: int) -> Ask:
    """Return what is asked where no profile says."""
    return default_ask(gpu, default_spread(model, count), context)


def test_deepseek_v3_as_published():
    """671 billion parameters, 37 of them at work on a token, 11.5 billion of its own in the draft layer."""
    assert DEEPSEEK.parameters == 671_026_419_200
    assert DEEPSEEK.active_parameters == 37_552_297_472
    assert DEEPSEEK.draft_parameters == pytest.approx(11.5e9, rel=0.01)
    assert (DEEPSEEK.layers, DEEPSEEK.heads, DEEPSEEK.experts, DEEPSEEK.context) == (61, 128, 256, 163_840)


def test_bytes_of_the_checkpoint():
    """FP8 with a float32 scale for each 128 x 128 block: 688.6 GB with the draft layer and its copy of both ends."""
    whole = sum(
        part.bytes(2, quantised=True) * (DEEPSEEK.experts if part.split is Split.EXPERTS else 1)
        for part in (*DEEPSEEK.parts, *DEEPSEEK.draft_parts)
        if not part.copies
    )
    ends = 2 * DEEPSEEK.vocabulary * DEEPSEEK.hidden * 2
    assert whole + ends == pytest.approx(688.57e9, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_as_transformers_has_them(name):
    """Built on no device, from the same configuration: no parameter is missing or counted twice."""
    read = dict(config(name))
    read.pop("quantization_config", None)
    assert architecture(read).parameters == _transformers(read)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_dense_families(family, tied):
    """Biases, norms of the heads and tied ends are counted as each family has them."""
    read = {
        "model_type": family,
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 1000,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
    }
    assert architecture(read).parameters == _transformers(read)


def _transformers(read: dict) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    described = AutoConfig.for_model(
        **{k: v for k, v in read.items() if k not in ("architectures", "torch_dtype")}
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
    seen = {id(p): p.numel() for p in model.parameters()}
    bias = {id(b): b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
    return sum(seen.values()) + sum(bias.values())


@pytest.mark.parametrize(
    ("name", "made"),
    [("smollm2-135m-instruct", smollm2._CONFIG), ("tiny-deepseek-v3", Dimensions().config())],
)
def test_small_models_are_described_as_they_are_made(name, made):
    """The published configuration is the recipe's."""
    described = config(name)
    assert {key: described[key] for key in made} == made


def test_kv_bytes():
    """MLA: 61 layers x (512 + 64) numbers, whole on every rank; heads are divided among ranks, one at least."""
    assert DEEPSEEK.kv_bytes(2) == 70_272 == DEEPSEEK.kv_bytes(2, 8)
    assert DEEPSEEK.kv_bytes(2, draft=True) == 71_424
    assert DEEPSEEK.kv_bytes(1) == 35_136
    assert SMALL.kv_bytes(4) == 46_080
    assert SMALL.kv_bytes(4, 3) == SMALL.kv_bytes(4, 9) == 15_360


def test_every_byte_of_a_gpu():
    """8 x H200 as the profile runs it, from the dimensions, by hand."""
    result = plan(DEEPSEEK, H200, of_profile(load("h200x8"), DEEPSEEK))

    def fp8(rows: int, columns: int) -> int:
        return rows * columns + 4 * -(-rows // 128) * -(-columns // 128)

    hidden = 7168
    expert = 2 * fp8(2048, hidden) + fp8(hidden, 2048)
    down = fp8(1536, hidden) + fp8(576, hidden)
    up = fp8(128 * 192, 1536) + fp8(128 * 256, 512) + fp8(hidden, 128 * 128)
    absorbed = 128 * 256 * 512 * 2
    norms = (2 * hidden + 1536 + 512) * 2
    gate = (256 * hidden + 256) * 2
    attention = down + up + absorbed + norms
    mixture = 32 * expert + expert + gate
    by_hand = {
        "routed experts": 58 * 32 * expert,
        "shared expert": 58 * expert,
        "attention, down": 61 * down,
        "attention, up": 61 * up,
        "attention, absorbed": 61 * absorbed,
        "norms": 61 * norms,
        "gates": 58 * gate,
        "dense MLP": 3 * (2 * fp8(18432, hidden) + fp8(hidden, 18432)),
        "embedding": 129_280 * hidden * 2,
        "head": 129_280 * hidden * 2,
        "last norm": hidden * 2,
        "draft layer (MTP)": attention + mixture + (hidden * 2 * hidden + 3 * hidden) * 2,
    }
    assert dict(result.weights) == by_hand
    usable = int((H200.memory - RUNTIME) * 0.85)
    assert result.kv == usable - sum(by_hand.values())
    assert result.group_tokens == result.kv // 71_424
    assert result.tokens == 8 * result.group_tokens
    assert result.runtime + result.weight_bytes + result.kv + result.free == H200.memory


def test_conversations_live_in_one_group():
    """What is left over in each group serves nobody: whole windows are counted group by group."""
    result = plan(DEEPSEEK, H200, of_profile(load("h200x8"), DEEPSEEK))
    assert result.conversations(131_072) == 8 * (result.group_tokens // 131_072) < result.tokens // 131_072
    assert result.fits


def test_attention_groups_against_one_group():
    """Dividing the heads makes room, but then every GPU holds the same tokens."""
    groups = plan(DEEPSEEK, H200, Ask(131_072, default_spread(DEEPSEEK, 8), fraction=0.85))
    whole = replace(groups.ask.spread, attention_dp=1, dense_dp=False, head_dp=False)
    one = plan(DEEPSEEK, H200, replace(groups.ask, spread=whole))
    assert one.weight_bytes < groups.weight_bytes
    assert one.group_tokens > groups.group_tokens
    assert one.tokens < groups.tokens


def test_redundant_experts_cost_their_bytes():
    """32 spare copies over 8 GPUs are 4 experts more on each."""
    spread = default_spread(DEEPSEEK, 8, draft=False)
    plain = dict(plan(DEEPSEEK, H200, Ask(4096, spread)).weights)
    spare = dict(plan(DEEPSEEK, H200, Ask(4096, replace(spread, redundant=32))).weights)
    assert spare["routed experts"] * 32 == plain["routed experts"] * 36
    assert {k: v for k, v in spare.items() if k != "routed experts"} == {
        k: v for k, v in plain.items() if k != "routed experts"
    }


def test_no_fp8_doubles_the_weights():
    """Where the tensor cores lack FP8 the weights are served as bfloat16."""
    spread = default_spread(DEEPSEEK, 16, draft=False)
    narrow = dict(plan(DEEPSEEK, H800, Ask(4096, spread)).weights)["routed experts"]
    wide = dict(plan(DEEPSEEK, GPUS["A100"], Ask(4096, spread)).weights)["routed experts"]
    assert wide / narrow == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("profile", "model", "expected"),
    [("gpu1", SMALL, 0.929), ("gpu1", DEEPSEEK, 0.929), ("chunk", DEEPSEEK, 0.866)],
)
def test_kept_free_as_sglang_keeps_it(profile, model, expected):
    """Values that SGLang 0.5.23 resolved on an H200's memory."""
    if profile == "chunk":
        arguments = dict(load("h200x8").arguments) | {"chunked_prefill_size": 8192}
        del arguments["mem_fraction_static"]
        chosen = replace(load("h200x8"), arguments=arguments)
    else:
        chosen = load(profile)
    assert static_fraction(model, H200, of_profile(chosen, model)) == expected


@pytest.mark.parametrize(
    ("gpus", "count", "context"),
    [("H800", 8, 131_072), ("L40S", 8, 163_840), ("RTX4090", 1, 4096), ("A100", 16, 4096)],
)
def test_what_would_fit_does(gpus, count, context):
    """Each remedy with other GPUs is a plan that fits when it is made."""
    failed = plan(DEEPSEEK, GPUS[gpus], default(DEEPSEEK, GPUS[gpus], count, context))
    assert not failed.fits
    found = [remedy.options for remedy in remedies(failed) if remedy.options.startswith("--gpus")]
    assert found
    for options in found:
        more, kind = options.split()[1].split("x", 1)
        ask = default(DEEPSEEK, GPUS[kind], int(more), context)
        if profile := made_for(DEEPSEEK, GPUS[kind], int(more)):
            ask = of_profile(profile, DEEPSEEK, context)
        if "--attention-dp 1" in options:
            ask = replace(ask, spread=replace(ask.spread, attention_dp=1, dense_dp=False, head_dp=False))
        assert plan(DEEPSEEK, GPUS[kind], ask).fits


def test_smaller_changes_first():
    """A window that nearly fits: a smaller one, no draft, or a narrower cache would do."""
    failed = plan(DEEPSEEK, H800, default(DEEPSEEK, H800, 16, 131_072))
    options = [remedy.options for remedy in remedies(failed)]
    assert options[:3] == ["--context 113664", "--no-draft", "--kv-dtype fp8_e4m3"]


def test_nothing_would():
    """More than any known machine: said, not looped over."""
    giant = replace(DEEPSEEK, parts=tuple(replace(p, matrices=p.matrices * 400) for p in DEEPSEEK.parts))
    failed = plan(giant, H800, Ask(4096, default_spread(giant, 8), fraction=0.85))
    assert remedies(failed) == ()


def test_small_model_on_a_gpu():
    """A quarter of a gigabyte of weights; the rest is cache."""
    result = plan(SMALL, L4, of_profile(load("gpu1"), SMALL))
    assert result.weight_bytes == SMALL.parameters * 2
    assert result.fits
    assert result.tokens == result.kv // 23_040


def test_host_memory():
    """On the CPU nothing is kept free but for the processes, and nothing is narrower than float32."""
    host = Gpu("cpu", 8 * GIB, fp8=False, fixed=False)
    result = plan(SMALL, host, of_profile(load("cpu"), SMALL))
    assert result.weight_bytes == SMALL.parameters * 4
    assert result.kv == 6 * GIB - result.weight_bytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 200_000}, "context_length: 200000 tokens were asked for, the model has 163840"),
        ({"kv_dtype": "fp4"}, "kv_cache_dtype: expected one of auto"),
        ({"spread": Parallelism(tp=3)}, "tp_size: 128 attention heads cannot be divided among 3 ranks"),
    ],
)
def test_impossible_is_refused(change, message):
    """One line that names the key."""
    with pytest.raises(ProfileRefused, match=message):
        plan(DEEPSEEK, H200, replace(Ask(4096, Parallelism()), **change))


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: expected one of llama"),
        ({"model_type": "llama", "hidden_size": "big"}, "hidden_size: expected a whole number, got 'big'"),
        ({}, "model_type"),
    ],
)
def test_configuration_that_cannot_be_read(read, message):
    """The key that is wrong is named."""
    with pytest.raises(ModelUnusable, match=message):
        architecture(read)


def test_tables():
    """GPUs and rates are complete, and every rate says where it is from."""
    assert all(gpu.memory >= 15_000 * MIB for gpu in GPUS.values())
    assert all(rate.gpu in GPUS and rate.source and (rate.total or rate.prefill) for rate in RATES)
    served = {rate.gpu: rate for rate in RATES}["H800"]
    assert (served.prefill, served.decode) == (73_700, 14_800)
