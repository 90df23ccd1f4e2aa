"""Native products agree with torch's for every form of weights and any number of tokens."""

import pytest
import torch

from engine.cpu import native
from engine.cpu.linear import BLOCK_TOKENS, NativeLinear, block_tokens
from engine.cpu.packing import pack
from tests.engine.cpu.test_packing import blocks_of_eight, blocks_of_four

WEIGHTS = {
    "four": blocks_of_four(70, 96),
    "eight": blocks_of_eight(70, 96),
    "sixteen": torch.randn(70, 96).bfloat16().float(),
    "full": torch.randn(70, 96),
    "odd": torch.randn(3, 50),
}


@pytest.mark.parametrize("tokens", [1, 3, 4, 9, BLOCK_TOKENS + 5])
@pytest.mark.parametrize("form", WEIGHTS)
def test_products(form, tokens):
    """Rows that fill no tile and tokens that fill no block included."""
    team = native.team()
    if team is None:
        pytest.skip("no native kernels on this machine")
    weight = WEIGHTS[form]
    x = torch.randn(tokens, weight.shape[1])
    expected = x.double() @ weight.double().T
    out = NativeLinear(pack(weight), team)(x)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("form", WEIGHTS)
def test_a_token_does_not_depend_on_its_batch(form):
    """A token's products are equal to the bit alone and in company: an answer can be continued in another batch."""
    team = native.team()
    if team is None:
        pytest.skip("no native kernels on this machine")
    linear = NativeLinear(pack(WEIGHTS[form]), team)
    x = torch.randn(23, WEIGHTS[form].shape[1])
    together = linear(x)
    for count in (1, 2, 3, 7):
        assert torch.equal(linear(x[:count]), together[:count])


@pytest.mark.parametrize(
    ("columns", "tokens"), [(1, 256), (576, 256), (1536, 128), (4096, 48), (100_000, 32)]
)
def test_inputs_of_a_call_stay_near(columns, tokens):
    """As many tokens as the second-level cache holds, within bounds, in whole tiles."""
    assert block_tokens(columns) == tokens
