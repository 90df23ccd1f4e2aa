"""Candidates in rows: which are kept, where they lie, and that choosing first changes no token."""

import pytest
import torch

from engine.cpu import sampling, speculation


def accept(candidates, target):
    """Return (choices, kept places, kept drafts) for rows of candidates."""
    rows, width = len(candidates), len(candidates[0])
    predicts = torch.full((rows * width,), -7, dtype=torch.int32)
    index = torch.full((rows, width), -7, dtype=torch.int32)
    number = torch.empty((rows,), dtype=torch.int32)

    class Greedy:
        is_all_greedy = True

    nothing = torch.empty(0)
    token = speculation._current.set(speculation._Verification(nothing, nothing, Greedy))
    speculation._accept(
        predicts=predicts,
        accept_index=index,
        accept_token_num=number,
        candidates=torch.tensor(candidates),
        target_predict=torch.tensor(target),
        topk=1,
    )
    speculation._current.reset(token)
    return predicts.tolist(), index.tolist(), number.tolist()


def test_drafts_are_kept_up_to_the_first_wrong_one():
    """What the target chose after the last kept candidate always comes with them."""
    predicts, index, number = accept([[5, 6], [5, 6]], [[6, 9], [8, 9]])
    assert number == [1, 0]
    assert index == [[0, 1], [2, -1]]
    assert predicts == [6, 9, 8, -7]


def test_a_right_draft_behind_a_wrong_one_is_not_kept():
    """Its own past was wrong."""
    _, index, number = accept([[1, 2, 3, 4]], [[2, 9, 4, 5]])
    assert number == [1]
    assert index == [[0, 1, -1, -1]]


def test_the_last_kept_token_is_found():
    """In each row, at its own length."""
    out = torch.empty(2, dtype=torch.int32)
    speculation._fill_last_accepted(torch.tensor([6, 9, 8, 0]), torch.tensor([2, 1]), out, 2, 2)
    assert out.tolist() == [9, 8]


def test_slots_of_candidates():
    """They are written to and read from the table at each request's own length."""
    table = torch.zeros((4, 10), dtype=torch.int32)
    requests, lengths = torch.tensor([2, 0]), torch.tensor([3, 5])
    speculation._assign_slots(requests, table, lengths, lengths + 2, torch.tensor([11, 12, 21, 22]), 2)
    found = speculation.slots_of(
        req_pool_indices=requests, req_to_token=table, start_offset=lengths, draft_token_num=2
    )
    assert found.tolist() == [11, 12, 21, 22]
    assert int(table.sum()) == 66


@pytest.mark.parametrize("limited", [False, True])
def test_candidates_are_sampled_as_single_tokens_are(limited):
    """The draw at a position is the one that a step without speculation makes there."""
    torch.manual_seed(1)
    logits = torch.randn(4, 50)
    seeds, positions = torch.tensor([7, 8]), torch.tensor([3, 4, 9, 10])

    class Info:
        temperatures = torch.tensor([[0.7], [1.3]])
        top_ks, top_ps, min_ps = torch.tensor([5, 50]), torch.tensor([1.0, 0.9]), torch.tensor([0.0, 0.0])
        need_top_k_sampling = need_top_p_sampling = limited
        need_min_p_sampling = False
        sampling_seed = seeds

    chosen = speculation._drawn(speculation._Verification(positions, logits, Info), width=2)
    for row in range(4):
        request = row // 2
        probs = torch.softmax(logits[row : row + 1] / Info.temperatures[request], dim=-1)
        if limited:
            one = slice(request, request + 1)
            probs = sampling.keep_likely(probs, Info.top_ks[one], Info.top_ps[one], Info.min_ps[one])
        number = sampling.uniforms(seeds[request : request + 1], positions[row : row + 1])
        assert chosen.view(-1)[row] == sampling.draw(probs, number)[0]
