"""Checkpoints of the DeepSeek tests."""

import json
import shutil

import pytest

from engine.models.deepseek import Dimensions
from engine.models.tiny_deepseek import write

from ..conftest import DATA

DIMENSIONS = Dimensions()


@pytest.fixture(scope="session")
def folder():
    """Return the checkpoint."""
    return write(DATA / "models" / "tiny-deepseek-v3", DIMENSIONS, lambda *progress: None)


@pytest.fixture(scope="session")
def drafting(folder, tmp_path_factory):
    """Return a checkpoint whose draft layer often guesses right: both go mostly by the last token."""
    target = tmp_path_factory.mktemp("drafting") / "model"
    shutil.copytree(folder, target)
    places = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    for file in sorted(set(places.values())):
        _quieten(target / file)
    return target


def _quieten(path) -> None:
    """Scale what layers add to the hidden state down, and let the draft take the next token's embedding alone."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.mul_(0.01)
        if name.endswith("eh_proj.weight"):
            tensor.zero_()
            tensor[:, : tensor.shape[0]] = torch.eye(tensor.shape[0])
    save_file(tensors, path, {"format": "pt"})
