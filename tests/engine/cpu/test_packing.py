"""Packed weights unpack to exactly what was packed, in the smallest form that can."""

import pytest
import torch

from engine.cpu.packing import BLOCK, Form, pack, unpack


def blocks_of_four(rows: int, columns: int) -> torch.Tensor:
    """Return weights as a 4-bit file gives them."""
    numbers = torch.randint(0, 16, (rows, columns // BLOCK, BLOCK)).float()
    numbers[..., 0], numbers[..., 1] = 0, 15
    scales = torch.rand(rows, columns // BLOCK, 1).half().float() + 2**-10
    return (numbers * scales.half().float() + torch.randn_like(scales).half().float()).view(rows, columns)


def blocks_of_eight(rows: int, columns: int) -> torch.Tensor:
    """Return weights as an 8-bit file gives them."""
    numbers = torch.randint(-127, 128, (rows, columns // BLOCK, BLOCK)).float()
    numbers[..., 0] = 127
    return (numbers * torch.rand(rows, columns // BLOCK, 1).half().float()).view(rows, columns)


@pytest.mark.parametrize(
    ("weight", "form"),
    [
        (blocks_of_four(300, 96), Form.FOUR),
        (blocks_of_eight(300, 96), Form.EIGHT),
        (torch.randn(20, 96).bfloat16().float(), Form.SIXTEEN),
        (torch.randn(20, 96), Form.FULL),
        (torch.randn(20, 50), Form.FULL),
        (torch.zeros(20, 96), Form.FOUR),
    ],
)
def test_packing_is_exact(weight, form):
    """Every weight comes back bit for bit, in the expected form."""
    packed = pack(weight)
    assert packed.form == form
    assert torch.equal(unpack(packed), weight)


def test_one_weight_off_is_noticed():
    """A matrix with a single weight that does not fit keeps its full form."""
    weight = blocks_of_four(300, 96)
    weight[299, 95] += 0.001
    packed = pack(weight)
    assert packed.form == Form.FULL
    assert torch.equal(unpack(packed), weight)
