"""What is compared: policies, with idle work and without, in several situations."""

from __future__ import annotations

from dataclasses import dataclass

from chatserver.domain.response import Truncation


@dataclass(frozen=True, slots=True)
class Arm:
    """One policy. `idle`: whether the next turn's prefix is made between turns."""

    name: str
    policy: Truncation
    ratio: float = 0.7
    idle: bool = False

    @property
    def naive(self) -> bool:
        """Whether it drops as little as it can, as soon as it must: the window slides with every turn."""
        return self.ratio == 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One situation. `reasoning`: half of each answer is dropped from later prompts, as templates drop reasoning.

    `file`: the conversations are those of a ShareGPT-like file, whose messages are of very different lengths.
    """

    name: str
    conversations: int = 1
    page: int = 1
    events: bool = False
    reasoning: bool = False
    file: bool = False


NAIVE = Arm("naive sliding", Truncation.RETENTION_RATIO, 1.0)
POLICIES = (
    Arm("auto", Truncation.AUTO),
    Arm("ratio 0.5", Truncation.RETENTION_RATIO, 0.5),
    Arm("ratio 0.7", Truncation.RETENTION_RATIO, 0.7),
    Arm("ratio 0.8", Truncation.RETENTION_RATIO, 0.8),
)
ARMS = (
    NAIVE,
    *(
        arm
        for plain in POLICIES
        for arm in (plain, Arm(f"{plain.name} + idle", plain.policy, plain.ratio, True))
    ),
)

SCENES = (
    Scene("plain"),
    Scene("events", events=True),
    Scene("reasoning", reasoning=True),
    Scene("page64", page=64, events=True),
    Scene("file", file=True),
    Scene("crowd", conversations=16),
    Scene("all", conversations=16, page=64, events=True, reasoning=True),
)
EVERYWHERE = "auto + idle"
"""The arm that is run in the scenes after the first, unless others are asked for."""
CROWDED = ("naive sliding", "auto", "auto + idle")
"""The arms that are run with many conversations when all is run: each takes minutes there."""


def chosen(scenes: str, arms: str, *, full: bool = False) -> list[tuple[Scene, list[Arm]]]:
    """Return what to run. `scenes`, `arms`: names, separated by commas, arms also by a part of theirs; "": see above.

    `full`: every scene with every arm, in place of those that are named. Raises ValueError, which names what is
    unknown.
    """
    if full:
        return [(scene, _all_arms(scene)) for scene in SCENES]
    known = {scene.name: scene for scene in SCENES}
    picked = []
    for name in scenes.split(","):
        if name not in known:
            raise ValueError(f"no scene {name!r}; there are {', '.join(known)}")
        wanted = arms.split(",") if arms else [""] if name == "plain" else [EVERYWHERE]
        found = [arm for arm in ARMS if any(part in arm.name for part in wanted)]
        if not found:
            raise ValueError(f"no arm is called {arms!r}; there are {', '.join(arm.name for arm in ARMS)}")
        picked.append((known[name], found))
    return picked


def _all_arms(scene: Scene) -> list[Arm]:
    return [arm for arm in ARMS if scene.conversations == 1 or arm.name in CROWDED]
