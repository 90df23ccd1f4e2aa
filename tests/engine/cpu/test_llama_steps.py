"""All layers of a Llama model as one native call agree with the layers written out."""

import pytest
import torch

from engine.cpu import native
from tests.engine.cpu.small_llama import Shape, Steps, by_hand

SHAPE = Shape(layers=2, hidden=96, inner=160, heads=6, kv_heads=2, width=32, slots=400)
TABLE = torch.stack([torch.randperm(SHAPE.slots, generator=torch.Generator().manual_seed(i)) for i in (0, 1)])
BATCHES = {
    "one": ([0], [17]),
    "a short turn behind a prefix": ([1] * 7, list(range(270, 277))),
    "a prefill": ([0] * 70, list(range(70))),
}


@pytest.fixture(scope="module")
def steps():
    """Return layers of the shape."""
    if native.team() is None:
        pytest.skip("no native kernels on this machine")
    torch.manual_seed(0)
    return Steps(SHAPE, TABLE.int())


@pytest.mark.parametrize("batch", BATCHES)
def test_a_step_equals_the_layers_written_out(steps, batch):
    """Norms, rotation, keys and values in the pool, attention, both projections and the gate, layer by layer."""
    requests, positions = (torch.tensor(part) for part in BATCHES[batch])
    stream = torch.randn(len(requests), SHAPE.hidden)
    expected = by_hand(steps.model, steps.pool, TABLE, stream, requests, positions)
    out = steps.run(stream, requests, positions)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_token_does_not_depend_on_what_is_computed_beside_it(steps):
    """A prefill, cut anywhere, leaves the same streams to the bit: an answer can be continued in other pieces."""
    requests, positions = torch.zeros(40, dtype=torch.int64), torch.arange(40)
    stream = torch.randn(40, SHAPE.hidden)
    whole = steps.run(stream, requests, positions)
    for cut in (1, 2, 7, 39):
        parts = [steps.run(stream[r], requests[r], positions[r]) for r in (slice(cut), slice(cut, None))]
        assert torch.equal(torch.cat(parts), whole)
