"""What a token of DeepSeek-V3 costs in SGLang's own KV pool."""

import pytest

pytestmark = pytest.mark.sglang

TOKENS = 1000


def test_a_token_of_the_real_dimensions_takes_70272_bytes():
    """61 layers x (512 + 64) numbers x 2 bytes: allocated, not calculated, and no more than one page is spare."""
    import torch
    from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool

    pool = MLATokenToKVPool(
        TOKENS,
        page_size=1,
        dtype=torch.bfloat16,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        layer_num=61,
        device="cpu",
        enable_memory_saver=False,
    )
    buffers = [pool.get_key_buffer(layer) for layer in range(61)]
    slots = {buffer.shape[0] for buffer in buffers}
    assert slots == {TOKENS + 1}  # slot 0 takes what padding writes
    assert sum(buffer.nbytes for buffer in buffers) == 70_272 * (TOKENS + 1)
    assert len({buffer.untyped_storage().data_ptr() for buffer in buffers}) == 61
    values = [pool.get_value_buffer(layer) for layer in range(61)]
    assert all(
        v.data_ptr() == k.data_ptr() for k, v in zip(buffers, values, strict=True)
    )  # a part of the keys
