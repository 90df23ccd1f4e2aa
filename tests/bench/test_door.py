"""The bench of the front door runs: a round of it, and every step shows."""

from collections import defaultdict

from tests.bench.door import __main__ as door


async def test_one_round(monkeypatch):
    monkeypatch.setattr(door, "ROUNDS", 1)
    monkeypatch.setattr(door, "PER_ROUND", 3)
    samples = await door.run()
    assert {len(times) for times in samples.values()} == {3} and len(samples) == 6
    steps: dict[str, set[str]] = defaultdict(set)
    for arm, times in samples.items():
        steps[arm] = set().union(*times)
    assert all(found == set(door.STEPS) for found in steps.values())
