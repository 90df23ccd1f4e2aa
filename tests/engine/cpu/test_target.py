"""Kernels for other vectors than this processor's widest compute the same."""

import os
import subprocess
import sys

import pytest

from engine.cpu import native

CODE = """
import torch
from engine.cpu import native, target
from engine.cpu.decode_attention import NativeDecoder
from engine.cpu.linear import NativeLinear
from engine.cpu.packing import pack
from tests.engine.cpu.test_packing import blocks_of_eight, blocks_of_four

team = native.team()
torch.manual_seed(0)
found = []
for weight in (blocks_of_four(70, 96), blocks_of_eight(70, 96), torch.randn(70, 50)):
    for tokens in (1, 7):
        x = torch.randn(tokens, weight.shape[1])
        out = NativeLinear(pack(weight), team)(x)
        found.append((out - x.double() @ weight.double().T).abs().max() / out.abs().max())
keys, values = torch.randn(2, 600, 3, 64)
query, table = torch.randn(2, 9, 64), torch.stack([torch.randperm(600) for _ in range(2)]).int()
decoder = NativeDecoder(table, team)
decoder.plan(torch.arange(2), torch.tensor([600, 33]))
out = decoder.attend(query, keys, values, 0.125)
for row, length in enumerate((600, 33)):
    k, v = (part[table[row, :length].long()].repeat_interleave(3, 1).double() for part in (keys, values))
    weights = (torch.einsum("hd,jhd->hj", query[row].double(), k) * 0.125).softmax(-1)
    found.append((out[row] - torch.einsum("hj,jhd->hd", weights, v)).abs().max())
print(target.target().name, float(max(found)))
"""


def run(**environ: str) -> subprocess.CompletedProcess[str]:
    """Run CODE in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(native.team() is None, reason="no native kernels on this machine")
def test_narrower_vectors_compute_the_same():
    """Every target but the widest, which all tests run, by name, is what gets compiled, and its numbers are right."""
    from engine.cpu import target

    narrower = target.targets_here()[1:]
    if not narrower:
        pytest.skip("this processor has one width only")
    for one in narrower:
        done = run(ENGINE_VECTORS=one.name)
        assert done.returncode == 0, done.stderr[-2000:]
        name, error = done.stdout.split()
        assert name == one.name
        assert float(error) < 2e-6


@pytest.mark.skipif(native.team() is None, reason="no native kernels on this machine")
def test_vectors_that_are_not_here_are_refused():
    """The message names the variable and what there is."""
    done = run(ENGINE_VECTORS="avx4096")
    assert done.returncode != 0
    assert "ENGINE_VECTORS: expected one of" in done.stderr


def test_without_kernels_everything_stays_on_torch(monkeypatch):
    """Where numba is missing, or torch is asked for, there is no team, and callers take torch."""
    native.team.cache_clear()
    monkeypatch.setenv(native.CHOICE_VARIABLE, "torch")
    try:
        assert native.team() is None
    finally:
        native.team.cache_clear()
    monkeypatch.delenv(native.CHOICE_VARIABLE)
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    try:
        assert native.team() is None
    finally:
        native.team.cache_clear()
