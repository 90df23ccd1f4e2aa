"""KV pools that take memory as it is used: as large as SGLang's, zero, and not there until they are written."""

import gc
from pathlib import Path

import pytest
import torch

from engine.cpu.pool import LazyKeyValuePool, LazyLatentPool, zeros

pytestmark = pytest.mark.sglang

MIB = 2**20
COMMON = {"page_size": 1, "dtype": torch.float32, "device": "cpu", "enable_memory_saver": False}
KEYS = {"head_num": 3, "head_dim": 64, "layer_num": 4, **COMMON}
LATENT = {"kv_lora_rank": 64, "qk_rope_head_dim": 16, "layer_num": 4, **COMMON}


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss")) * 1024


def test_memory_is_taken_when_it_is_written():
    """Half a gibibyte costs nothing, a sixteenth of it what was written."""
    gc.collect()
    before = resident()
    table = zeros((512, MIB), torch.int8)
    made = resident() - before
    assert made < 16 * MIB
    table[:32] = 1
    assert 32 * MIB <= resident() - before < 64 * MIB
    assert not table[40].any()


def test_more_than_the_system_grants_fails_at_once():
    """Told as lack of memory, with words that `engine.launch_errors` knows."""
    with pytest.raises(OSError, match="Cannot allocate memory"):
        zeros((2**20, 2**30), torch.int8)


def buffers(pool) -> list[torch.Tensor]:
    """Return what a pool keeps its tokens in, layer by layer."""
    return [pool.get_key_buffer(n) for n in range(4)] + [pool.get_value_buffer(n) for n in range(4)]


@pytest.mark.parametrize(("ours", "sizes"), [(LazyKeyValuePool, KEYS), (LazyLatentPool, LATENT)])
def test_pools_are_as_sglangs_own(ours, sizes):
    """The same shapes, strides and types, all zero; one layer's memory is not another's."""
    mine, theirs = (buffers(kind(1000, **sizes)) for kind in (ours, ours.__mro__[1]))
    for a, b in zip(mine, theirs, strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
        assert not a.any()
    mine[0].fill_(1.0)
    assert not any(layer.any() for layer in mine[1:4])
