"""Prefill attention: only new queries, against prefix and new keys, in tiles."""

import pytest
import torch

from engine.cpu import attention
from tests.engine.cpu.test_decode_attention import by_hand


@pytest.mark.parametrize("shape", [(9, 3, 64, 64), (4, 1, 80, 64)], ids=str)
@pytest.mark.parametrize(("prefix", "new"), [(0, 1), (0, 70), (50, 1), (33, 70)])
@pytest.mark.parametrize("tile", [16, 256])
def test_a_prefill_equals_attention_by_hand(monkeypatch, shape, prefix, new, tile):
    """Each new query sees the prefix and the new keys up to its own."""
    monkeypatch.setattr(attention, "_TILE_QUERIES", tile)
    heads, kv_heads, width, value_width = shape
    query, keys = torch.randn(new, heads, width), torch.randn(prefix + new, kv_heads, width)
    values = keys[..., :value_width] if width != value_width else torch.randn_like(keys)
    out = torch.empty(new, heads, value_width)
    attention._attend(query, keys, values, out, width**-0.5)
    for row in range(new):
        seen = prefix + row + 1
        assert torch.allclose(
            out[row], by_hand(query[row], keys[:seen], values[:seen], width**-0.5), atol=1e-5
        )


def test_a_run_of_slots_is_a_view():
    """Consecutive slots become a slice; any gap or disorder keeps the indices."""
    assert attention._as_run(torch.tensor([4, 5, 6])) == slice(4, 7)
    assert attention._as_run(torch.tensor([9])) == slice(9, 10)
    for slots in ([4, 6, 5, 7], [1, 3], [3, 2, 1]):
        assert torch.is_tensor(attention._as_run(torch.tensor(slots)))
