"""A short run of the reuse bench: all its goals that need no model and no quiet machine."""

import argparse

import pytest

from tests.bench.reuse.__main__ import run
from tests.bench.reuse.arms import chosen
from tests.bench.reuse.figures import goals
from tests.bench.reuse.talk import from_file

OPTIONS = {"model": "scripted", "context": 1024, "turns": 16, "think": 0.2, "file": None, "no_amid": True}


@pytest.mark.timeout(120)
async def test_the_plumbing_meets_its_goals():
    """Pages of 1 and 64, stops, regenerates, edits, reasoning, 16 at once."""
    options = argparse.Namespace(**OPTIONS, scenes="plain,events,reasoning,page64,all", arms="auto + idle")
    results, _ = await run(options)
    assert [scene.name for scene, _ in results] == ["plain", "events", "reasoning", "page64", "all"]
    for scene, found in results:
        assert all(figures.cuts for figures in found.values()), f"{scene.name}: no conversation was cut"
        reached = [
            goal for goal in goals(scene, found) if "TTFT" not in goal.what and "share" not in goal.what
        ]
        if scene.conversations > 1:  # how much idle time there is depends on the machine
            reached = [goal for goal in reached if "foreground" not in goal.what]
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


def test_unknown_scenes_and_arms_are_named():
    """A slip of the pen is told, not run as nothing."""
    with pytest.raises(ValueError, match="no scene 'plane'"):
        chosen("plane", "")
    with pytest.raises(ValueError, match="no arm is called 'bold'"):
        chosen("plain", "bold")
