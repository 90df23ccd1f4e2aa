"""Native and torch decoding agree with attention written out, for every shape of heads and batch."""

import pytest
import torch

from engine.cpu import native
from engine.cpu.decode_attention import NativeDecoder, TorchDecoder

SLOTS = 3000
SHAPES = [(9, 3, 64, 64), (4, 4, 32, 32), (20, 1, 80, 64), (16, 2, 128, 128)]
BATCHES = [[1], [130], [257, 1, 256, 600], [7] * 33]


def by_hand(query, keys, values, scale):
    """Return attention of one row: [heads, value width]."""
    group = query.shape[0] // keys.shape[1]
    keys, values = (part.float().repeat_interleave(group, 1) for part in (keys, values))
    weights = (torch.einsum("hd,jhd->hj", query.float(), keys) * scale).softmax(-1)
    return torch.einsum("hj,jhd->hd", weights, values)


@pytest.fixture(scope="module", params=["native", "torch"])
def make(request):
    """Return what makes a decoder for a slot table."""
    if request.param == "torch":
        return TorchDecoder
    team = native.team()
    if team is None:
        pytest.skip("no native kernels on this machine")
    return lambda table: NativeDecoder(table, team)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", BATCHES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decoding(make, shape, lengths, dtype):
    """Rows of scattered and of consecutive slots, latent values inside their keys."""
    heads, kv_heads, width, value_width = shape
    torch.manual_seed(0)
    keys = torch.randn(SLOTS, kv_heads, width, dtype=dtype)
    values = keys[..., :value_width] if width != value_width else torch.randn_like(keys)
    table = torch.zeros(64, 1024, dtype=torch.int32)
    requests = torch.randperm(64)[: len(lengths)]
    for request, length in zip(requests.tolist(), lengths, strict=True):
        table[request, :length] = torch.randperm(SLOTS)[:length]
    query = torch.randn(len(lengths), heads, width, dtype=dtype)
    decoder = make(table)
    decoder.plan(requests, torch.tensor(lengths))
    out = decoder.attend(query, keys, values, width**-0.5)
    for row, (request, length) in enumerate(zip(requests.tolist(), lengths, strict=True)):
        slots = table[request, :length].long()
        expected = by_hand(query[row], keys[slots], values[slots], width**-0.5)
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        assert torch.allclose(out[row].float(), expected, atol=tolerance, rtol=tolerance)


def test_a_row_does_not_depend_on_its_batch(make):
    """Native results are equal to the bit alone and in company."""
    if make is TorchDecoder:
        pytest.skip("torch pads a batch, which changes the order of sums")
    keys, values = torch.randn(SLOTS, 3, 64), torch.randn(SLOTS, 3, 64)
    table = torch.stack([torch.randperm(SLOTS)[:1024] for _ in range(8)]).int()
    query = torch.randn(8, 9, 64)
    lengths = torch.tensor([1, 5, 300, 700, 256, 257, 1000, 20])
    decoder = make(table)
    decoder.plan(torch.arange(8), lengths)
    together = decoder.attend(query, keys, values, 0.125)
    for row in range(8):
        decoder.plan(torch.tensor([row]), lengths[row : row + 1])
        assert torch.equal(decoder.attend(query[row : row + 1], keys, values, 0.125)[0], together[row])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_one_request_share_their_keys(make, shape):
    """Blocks of neighbouring rows, more than fill one, over the edge of a chunk: each row sees up to its own length."""
    heads, kv_heads, width, value_width = shape
    torch.manual_seed(1)
    keys = torch.randn(SLOTS, kv_heads, width)
    values = keys[..., :value_width] if width != value_width else torch.randn_like(keys)
    table = torch.stack([torch.randperm(SLOTS)[:1024] for _ in range(4)]).int()
    spans = [(2, 250, 272), (0, 1, 6), (3, 700, 701), (3, 90, 91)]  # request, first and last length
    requests = torch.tensor([r for r, first, last in spans for _ in range(first, last)])
    lengths = torch.cat([torch.arange(first, last) for _, first, last in spans])
    query = torch.randn(len(lengths), heads, width)
    decoder = make(table)
    decoder.plan(requests, lengths)
    together = decoder.attend(query, keys, values, width**-0.5)
    for row, (request, length) in enumerate(zip(requests.tolist(), lengths.tolist(), strict=True)):
        slots = table[request, :length].long()
        expected = by_hand(query[row], keys[slots], values[slots], width**-0.5)
        assert torch.allclose(together[row], expected, atol=1e-5, rtol=1e-5)
        if make is not TorchDecoder:
            decoder.plan(requests[row : row + 1], lengths[row : row + 1])
            alone = decoder.attend(query[row : row + 1], keys, values, width**-0.5)
            assert torch.equal(alone[0], together[row])
