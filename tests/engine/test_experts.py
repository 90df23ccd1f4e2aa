"""Expert load: from a scheduler's table through a mapped file to figures."""

import contextlib
import os
from pathlib import Path

import pytest

from engine.experts import FOLDER, ExpertFiles, ExpertLoad, LayerLoad


def test_imbalance_is_the_busiest_over_the_mean():
    """1.0 is even; busy ranks of different layers do not make up for each other."""
    first = LayerLoad(1, ranks=(30, 10), experts=4, busiest=25)
    second = LayerLoad(2, ranks=(10, 30), experts=4, busiest=10)
    assert (first.total, first.rank_imbalance, first.expert_imbalance) == (40, 1.5, 2.5)
    assert second.expert_imbalance == 1.0
    assert ExpertLoad((first, second)).rank_imbalance == 1.5
    assert ExpertLoad(()).rank_imbalance == 1.0


@pytest.fixture
def files():
    """Return fresh files and let them go at the end."""
    made = ExpertFiles()
    yield made
    made.close()


class Inner:
    """SGLang's recorder, as far as the counter is concerned."""

    recording = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_select_experts(self, topk_ids) -> None:
        self.seen.append(topk_ids.numel())

    @contextlib.contextmanager
    def with_current_layer(self, layer_idx):
        yield

    @contextlib.contextmanager
    def disable_this_region(self):
        yield

    @contextlib.contextmanager
    def with_forward_pass(self, forward_pass_id, forward_batch):
        yield {"metrics": 1}


def counter(folder: str, number: int, inner: Inner):
    """Return a counter of 4 experts on 2 ranks in 3 layers, as a scheduler has it."""
    from engine.expert_counter import ExpertCounter

    return ExpertCounter(inner, Path(folder) / f"rank-{number}", layers=3, experts=4, ranks=2)


@pytest.mark.sglang
def test_what_is_routed_is_read(files, monkeypatch):
    """Counts of all schedulers add up; padding, draft layers and warm-up are none; the files have no names any more."""
    import torch

    monkeypatch.setattr(
        "sglang.srt.runtime_context.get_device", lambda: type("Device", (), {"device": "cpu"})
    )
    with files.announced():
        folder = os.environ[FOLDER]
        inner = Inner()
        two = [counter(folder, number, inner) for number in range(2)]
    assert FOLDER not in os.environ
    files.open()
    assert not Path(folder).exists()
    with two[0].with_current_layer(1):
        two[0].on_select_experts(torch.tensor([[0, 1]]))  # before the first step: a warm-up
    for each in two:
        with each.with_forward_pass(1, None) as outputs:
            assert outputs == {"metrics": 1}
            with each.with_current_layer(1):
                each.on_select_experts(torch.tensor([[0, 3], [0, -1]], dtype=torch.int32))
            with each.with_current_layer(2):
                each.on_select_experts(torch.tensor([[2, 3]]))
            with each.disable_this_region(), each.with_current_layer(2):
                each.on_select_experts(torch.tensor([[0, 1]]))
            each.on_select_experts(torch.tensor([[0, 1]]))  # in no layer that is named
        assert each.recording
    assert files.read() == ExpertLoad((LayerLoad(1, (4, 2), 4, 4), LayerLoad(2, (0, 4), 4, 2)))
    assert len(inner.seen) == 9


def test_a_model_without_experts_has_no_load(files):
    """No scheduler made a file."""
    files.open()
    assert files.read() is None


def test_a_start_that_failed_leaves_nothing(files):
    """Files that were never opened go with their folder."""
    with files.announced():
        folder = Path(os.environ[FOLDER])
    (folder / "rank-0").write_bytes(b"x")
    files.close()
    files.close()
    assert not folder.exists()
