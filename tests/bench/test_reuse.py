"""A short run of the reuse bench: all its goals that need no model and no quiet machine."""

import argparse
import re
from uuid import uuid4

import pytest

from engine.contract import GenerateRequest, Sampling
from tests.bench.reuse.__main__ import run
from tests.bench.reuse.arms import SCENES, chosen
from tests.bench.reuse.cost import Cost
from tests.bench.reuse.engines import DATA
from tests.bench.reuse.figures import Figures, Wait, goals
from tests.bench.reuse.recording import Recording
from tests.bench.reuse.talk import LONGEST_TEXT, from_file, write_file
from tests.chatserver.service.engine_role import scripted

OPTIONS = {
    "model": "scripted",
    "context": 1024,
    "turns": 16,
    "think": 0.2,
    "file": None,
    "no_amid": True,
    "full": False,
    "data_dir": DATA,
}


@pytest.mark.timeout(120)
async def test_the_plumbing_meets_its_goals():
    """Pages of 1 and 64, stops, regenerates, edits, reasoning, 16 at once."""
    options = argparse.Namespace(
        **OPTIONS, scenes="plain,events,reasoning,page64,file,all", arms="auto + idle"
    )
    results, _ = await run(options)
    assert {scene.name for scene, _ in results} == {"plain", "events", "reasoning", "page64", "file", "all"}
    for scene, found in results:
        assert all(figures.cuts for figures in found.values()), f"{scene.name}: no conversation was cut"
        assert all(figures.share <= figures.bound < 1 for figures in found.values())
        reached = [
            goal
            for goal in goals(scene, found)
            if "TTFT" not in goal.what and not goal.what.endswith("share cached")
        ]
        if scene.conversations > 1:  # how much idle time there is depends on the machine
            reached = [goal for goal in reached if not re.search("foreground|possible", goal.what)]
        assert len(reached) >= 2
        assert all(goal.met for goal in reached), "\n".join(map(str, reached))


def test_conversations_of_a_file(tmp_path):
    """What people said, in order; what is no conversation is passed over."""
    path = tmp_path / "talks.json"
    path.write_text(
        '[{"conversations": [{"from": "human", "value": "One"}, {"from": "gpt", "value": "x"}, '
        '{"from": "user", "value": "Two"}]}, {"conversations": []}, "nothing"]'
    )
    (steps,) = from_file(path, 40)
    assert [step.text for step in steps] == ["One", "Two"]


def test_a_file_of_our_own(tmp_path):
    """Written by the seeded generator: the same for the same seed, as many turns as asked for, of all lengths."""
    path = tmp_path / "talks.json"
    write_file(path, 7, 3, 40)
    written = path.read_bytes()
    talks = list(from_file(path, 40))
    assert [len(steps) for steps in talks] == [40, 40, 40]
    lengths = sorted(len(step.text) for steps in talks for step in steps)
    assert lengths[-1] <= LONGEST_TEXT and lengths[-1] > 5 * lengths[len(lengths) // 2]
    assert len({step.tokens for steps in talks for step in steps}) > 10
    write_file(path, 7, 3, 40)
    assert path.read_bytes() == written


async def test_what_is_wasted_by_hand():
    """Idle prefills of 100, then of 50 more tokens; a prompt takes 120 of them: 30 are wasted, whoever else asks."""
    ids = tuple(range(1000, 1150))
    async with scripted(context=1024) as engine:
        recording = Recording(engine)

        async def ask(*prompt: int, salt: str = "tenant") -> None:
            request = GenerateRequest(uuid4().hex, prompt, Sampling(1, temperature=0.0), salt)
            async for _ in recording.generate(request):
                pass

        await recording.prefill(uuid4().hex, ids[:100], "tenant")
        await recording.prefill(uuid4().hex, ids, "tenant")
        assert (recording.idle, recording.wasted) == (150, 150)
        await ask(*ids, 7, salt="another's")
        await ask(*range(50, 60))
        assert recording.wasted == 150, "nobody began with it, or it was not theirs"
        await ask(*ids[:120], 7, 8, 9)
        assert recording.wasted == 30
        await ask(*ids[:60], 7, 8, 9)
        assert recording.wasted == 30, "what was of use stays so"
        dropped = uuid4().hex
        await recording.abort(dropped)
        await recording.prefill(dropped, range(500, 550), "tenant")
        assert (recording.idle, recording.wasted) == (150, 30), "what a dropped prefill did nobody knows"


def test_times_by_hand():
    """TTFT of 10 ms and 1 ms a token: the spread is all of the lengths'; one slow turn of the usual length is not."""
    found = Figures(waits=[Wait(2.0, 3.0, 5.0 + new, new) for new in range(10, 30)])
    assert found.per_token == pytest.approx(1.0)
    assert found.spread == pytest.approx(39 / 30)
    assert found.even == pytest.approx(1.0)
    found.waits.append(Wait(2.0, 3.0, 105.0, 20))
    assert found.even == pytest.approx(110 / 30, rel=0.1)


def test_unknown_scenes_and_arms_are_named():
    """A slip of the pen is told, not run as nothing."""
    with pytest.raises(ValueError, match="no scene 'plane'"):
        chosen("plane", "")
    with pytest.raises(ValueError, match="no arm is called 'bold'"):
        chosen("plain", "bold")
    assert len(chosen("", "", full=True)) == len(SCENES)


def test_what_idle_work_costs_by_hand():
    """Twice as long at the median; equal groups differ by nothing; the interval holds what was found."""
    cost = Cost({"A": [20.0] * 50, "B": [20.0] * 50, "off": [10.0] * 100})
    assert cost.ratio("A B", "off", 0.5) == (1.0, 1.0, 1.0)
    assert cost.ratio("A", "B", 0.99) == (0.0, 0.0, 0.0)
    uneven = Cost(
        {"A": [float(n) for n in range(100)], "B": [float(n) for n in range(50, 150)], "off": [50.0]}
    )
    found, low, high = uneven.ratio("B", "A", 0.5)
    assert found == 1.0 and 0 < low < found < high
