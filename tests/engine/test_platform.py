"""The CPU platform: found by SGLang, right in its kernels."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from engine.contract import ModelUnusable
from engine.cpu import moe, sampling, vision_shim
from engine.settings import EngineSettings, prepare_environment, server_args, window

PLENTY = 1 << 30


def run_python(code: str, **environ: str) -> str:
    """Run code in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


def test_sglang_finds_the_platform():
    """The entry point is installed under the name that the settings choose."""
    (entry,) = entry_points(group="sglang.srt.platforms")
    assert (entry.name, entry.value) == ("portable_cpu", "engine.platform:activate")


@pytest.mark.sglang
def test_sglang_resolves_the_platform():
    """SGLang's own resolution ends at our class, which is out of tree."""
    code = (
        "from sglang.srt.platforms import current_platform as p;"
        "print(type(p).__name__, p.is_out_of_tree(), p.get_dispatch_key_name(), p.capabilities.supports_triton)"
    )
    assert run_python(code, SGLANG_PLATFORM="portable_cpu") == "PortableCpuPlatform True native False"


def test_torchvision_can_be_imported_after_the_shim():
    """Beside a CPU torch, in a fresh process, twice installed."""
    code = (
        "from engine.cpu import vision_shim as v; a = v.install(); b = v.install();"
        "import torchvision; print(a == b and (a != torchvision.extension._has_ops()))"
    )
    assert run_python(code) == "True"


def test_the_shim_does_nothing_without_torchvision(monkeypatch):
    """It is needed only where torchvision is."""
    monkeypatch.setattr(vision_shim, "_declared", [])
    monkeypatch.setattr(vision_shim.importlib.util, "find_spec", lambda name: None)
    assert vision_shim.install() is False


def experts(tokens: int, hidden: int, inner: int, count: int, chosen: int):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(tokens, hidden, generator=generator)
    w13 = torch.randn(count, 2 * inner, hidden, generator=generator)
    w2 = torch.randn(count, hidden, inner, generator=generator)
    weights = torch.rand(tokens, chosen, generator=generator)
    ids = torch.stack([torch.randperm(count, generator=generator)[:chosen] for _ in range(tokens)])
    return x, w13, w2, weights, ids


def slow_mix(x, w13, w2, weights, ids):
    """The definition, pair by pair."""
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        for weight, expert in zip(weights[t], ids[t].tolist(), strict=True):
            if expert >= 0:
                gate, up = (w13[expert] @ x[t]).chunk(2)
                out[t] += weight * (w2[expert] @ (torch.nn.functional.silu(gate) * up))
    return out


@pytest.mark.parametrize("tokens", [1, 2, 33])
def test_experts_match_the_definition(tokens):
    """Grouping by expert changes nothing but the speed."""
    parts = experts(tokens, 16, 8, 6, 3)
    torch.testing.assert_close(moe.mix(*parts), slow_mix(*parts), rtol=1e-4, atol=1e-4)


def test_experts_of_other_ranks_are_skipped():
    """Ids below 0 add nothing, also when all are."""
    x, w13, w2, weights, ids = experts(9, 16, 8, 6, 3)
    here = torch.where(ids < 3, ids, -1)
    there = torch.where(ids >= 3, ids, -1)
    whole = moe.mix(x, w13, w2, weights, ids)
    halves = moe.mix(x, w13, w2, weights, here) + moe.mix(x, w13, w2, weights, there)
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-4)
    assert not moe.mix(x, w13, w2, weights, torch.full_like(ids, -1)).any()


def test_draws_follow_the_probabilities():
    """Over many positions each token comes as often as it should."""
    probs = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).expand(20000, 4)
    seeds = torch.full((20000,), 11, dtype=torch.int64)
    drawn = sampling.draw(probs, sampling.uniforms(seeds, torch.arange(20000)))
    shares = torch.bincount(drawn.long(), minlength=4) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.0, 0.3, 0.2]), rtol=0, atol=0.02)


def test_a_draw_depends_on_its_row_only():
    """Batch mates, order and batch size change nothing: the ground for continuing sampled answers."""
    generator = torch.Generator().manual_seed(1)
    probs = torch.softmax(torch.randn(8, 1000, generator=generator) * 3, dim=-1)
    seeds, positions = torch.arange(8), torch.arange(8) * 17
    together = sampling.draw(probs, sampling.uniforms(seeds, positions))
    for row in range(8):
        one = slice(row, row + 1)
        assert sampling.draw(probs[one], sampling.uniforms(seeds[one], positions[one])) == together[row]


def test_tokens_without_probability_are_never_drawn():
    """Not even by the largest number below 1."""
    probs = torch.tensor([[0.3, 0.7, 0.0, 0.0]])
    assert sampling.draw(probs, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [1]
    assert sampling.draw(probs, torch.tensor([0.0], dtype=torch.float64)).tolist() == [0]


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "kept"),
    [
        (PLENTY, 1.0, 0.0, [0, 1, 2, 3]),
        (2, 1.0, 0.0, [0, 2]),
        (PLENTY, 0.5, 0.0, [0]),
        (PLENTY, 0.6, 0.0, [0, 2]),
        (1, 0.99, 0.0, [0]),
        (PLENTY, 1.0, 0.5, [0, 2]),
    ],
)
def test_unlikely_tokens_are_dropped(top_k, top_p, min_p, kept):
    """top-k, top-p and min-p each keep what they name."""
    probs = torch.tensor([[0.5, 0.15, 0.3, 0.05]])
    result = sampling.keep_likely(probs, torch.tensor([top_k]), torch.tensor([top_p]), torch.tensor([min_p]))
    assert result.nonzero()[:, 1].tolist() == kept


def test_a_flat_distribution_is_kept_whole():
    """top-p beyond the ranks that are looked at first still keeps the right number."""
    probs = torch.full((1, 4000), 1 / 4000)
    probs[0, :2000] *= 1.5
    probs[0, 2000:] *= 0.5
    result = sampling.keep_likely(probs, torch.tensor([PLENTY]), torch.tensor([0.5]), torch.tensor([0.0]))
    assert result.count_nonzero() == 2000


def test_a_flat_row_does_not_change_those_beside_it():
    """Rows for which the first ranks are not enough, beside rows for which they are: each as if it were alone."""
    scales = torch.tensor([[0.1], [8.0], [1.0], [8.0]])
    logits = torch.randn(4, 4000, generator=torch.Generator().manual_seed(3))
    probs = torch.softmax(logits * scales, dim=-1)
    limits = torch.full((4,), PLENTY), torch.tensor([0.9, 0.9, 1.0, 0.5]), torch.tensor([0.0, 0.0, 0.1, 0.0])
    together = sampling.keep_likely(probs, *limits)
    for row in range(4):
        alone = sampling.keep_likely(probs[row : row + 1], *(limit[row : row + 1] for limit in limits))
        assert torch.equal(together[row], alone[0])
        order = probs[row].sort(descending=True).values
        enough = int((order.cumsum(-1) - order < limits[1][row]).sum())
        if limits[1][row] < 1:
            assert together[row].count_nonzero() == enough


def test_rows_without_limits_are_kept_whole_beside_others():
    """A batch mate with top-k does not change what a row may draw."""
    probs = torch.softmax(torch.randn(2, 4000, generator=torch.Generator().manual_seed(2)), dim=-1)
    result = sampling.keep_likely(probs, torch.tensor([PLENTY, 3]), torch.tensor([1.0, 1.0]), torch.zeros(2))
    assert torch.equal(result[0], probs[0])
    assert result[1].count_nonzero() == 3


def test_the_environment_is_set_in_one_place():
    """What a user chose stays; the platform is ours."""
    environ = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_WAIT_POLICY": "ACTIVE"}
    prepare_environment(EngineSettings(Path("m"), "m", tp=2, threads=3), environ)
    assert environ["SGLANG_PLATFORM"] == "portable_cpu"
    assert "SGLANG_USE_CPU_ENGINE" not in environ
    assert environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environ["OMP_NUM_THREADS"] == "3"
    assert environ["SGLANG_CPU_OMP_THREADS_BIND"].count("|") == 1


def test_a_gpu_is_left_to_sglang():
    """On another device nothing of the CPU platform is chosen."""
    environ: dict[str, str] = {}
    settings = EngineSettings(Path("m"), "m", device="cuda", extra={"page_size": 64})
    prepare_environment(settings, environ)
    args = server_args(settings, 4096)
    assert "SGLANG_PLATFORM" not in environ
    assert "attention_backend" not in args
    assert args["page_size"] == 64
    assert args["incremental_streaming_output"] is True
    assert args["allow_auto_truncate"] is False


def test_a_window_larger_than_the_models_is_refused():
    """The message has both numbers."""
    settings = EngineSettings(Path("m"), "m", context=9000)
    with pytest.raises(ModelUnusable, match="9000 tokens was asked for, m has 8192"):
        window(settings, {"max_position_embeddings": 8192})
    assert window(EngineSettings(Path("m"), "m"), {"max_position_embeddings": 8192}) == 8192


@pytest.mark.parametrize("key", ["attn_dp_size", "dp_size"])
def test_attention_groups_are_refused_on_a_cpu(key):
    """Told at the start, not by a scheduler that dies of its first request."""
    settings = EngineSettings(Path("m"), "m", tp=2, extra={key: 2})
    with pytest.raises(
        ModelUnusable, match=f"^{key}: expected 1 on a CPU, got 2: attention groups need a GPU"
    ):
        server_args(settings, 1024)
    assert server_args(replace(settings, device="cuda"), 1024)[key] == 2
