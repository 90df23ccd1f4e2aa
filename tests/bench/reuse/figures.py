"""What an arm came to, its row of the table, and the goals that it meets or misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.bench.report import percentile
from tests.bench.reuse.arms import Arm, Scene

HEADER = (
    *("policy", "turns", "reuse", "share", "bound", "prefill p50", "p99", "max", "over p99", "over max"),
    *("cuts", "dropped", "idle", "wasted", "told", "probe"),
)
TIMES = (
    *(
        "TTFT in ms",
        "turns",
        "p50",
        "p99",
        "p99/p50",
        "even",
        "per token",
        "queue p50",
        "p99",
        "plan p50",
        "p99",
    ),
    *("engine p50", "p99", "foreign CPU"),
)
MIN_OF_BOUND = 0.99
MIN_REUSE, MIN_SHARE, MAX_NAIVE_SHARE, MAX_SPREAD, MAX_IDLE_COST = 0.99, 0.93, 0.40, 1.5, 0.05
MAX_FOREIGN = 0.10
"""Share of the machine that others may use before figures in milliseconds say more of them than of us."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What one turn waited for, in milliseconds: for a claim, for its prompt and its prefix, for the engine.

    `new`: tokens that its foreground prefilled.
    """

    queue: float
    plan: float
    engine: float
    new: int

    @property
    def ttft(self) -> float:
        """The sum, from acceptance to the first token in the engine role."""
        return self.queue + self.plan + self.engine


@dataclass(slots=True)
class Figures:
    """Times in milliseconds, the rest in tokens and times. One entry a turn in the lists.

    `over`: tokens prefilled in the foreground beyond what is new: message, template, the answer's last token.
    `mistold`: tokens by which the cache endpoint was wrong about what the turn would prefill.
    `idle`, `wasted`: tokens that idle work computed, and those of them that no prompt took from the cache.
    `bound`: share of the prompts that was known before the message came, in whole pages.
    `foreign`: share of the machine's processors that others used meanwhile.
    """

    prefill: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    mistold: list[int] = field(default_factory=list)
    cuts: int = 0
    dropped: int = 0
    probe: int = 0
    reuse: float = 0.0
    share: float = 0.0
    bound: float = 0.0
    idle: int = 0
    wasted: int = 0
    foreign: float = 0.0

    @property
    def ttft(self) -> list[float]:
        """Time to the first token of each turn."""
        return [wait.ttft for wait in self.waits]

    @property
    def spread(self) -> float:
        """TTFT, p99 over p50."""
        return percentile(self.ttft, 0.99) / percentile(self.ttft, 0.5)

    @property
    def per_token(self) -> float:
        """Milliseconds that one new token more costs: the slope of the line through all turns (least squares)."""
        news, times = [wait.new for wait in self.waits], self.ttft
        mean, middle = sum(news) / len(news), sum(times) / len(times)
        square = sum((new - mean) ** 2 for new in news)
        product = sum((new - mean) * (time - middle) for new, time in zip(news, times, strict=True))
        return max(0.0, product / square) if square else 0.0

    @property
    def even(self) -> float:
        """The spread if all turns had the median of new tokens: what is left of it is not their lengths'."""
        slope, usual = self.per_token, percentile([wait.new for wait in self.waits], 0.5)
        times = [wait.ttft - slope * (wait.new - usual) for wait in self.waits]
        return percentile(times, 0.99) / percentile(times, 0.5)

    def row(self, name: str) -> tuple[object, ...]:
        """Return a row of the table of tokens."""
        parts: list[object] = [name, len(self.prefill)]
        parts += [f"{self.reuse:.4f}", f"{self.share:.3f}", f"{self.bound:.3f}"]
        parts += [percentile(self.prefill, 0.5), percentile(self.prefill, 0.99), max(self.prefill)]
        parts += [percentile(self.over, 0.99), max(self.over), self.cuts, self.dropped]
        return (*parts, self.idle, self.wasted, max(self.mistold, default="-"), self.probe)

    def times(self, name: str) -> tuple[object, ...]:
        """Return a row of the table of times."""
        parts: list[object] = [name, len(self.waits), percentile(self.ttft, 0.5), percentile(self.ttft, 0.99)]
        parts += [self.spread, self.even, self.per_token]
        for part in ("queue", "plan", "engine"):
            values = [getattr(wait, part) for wait in self.waits]
            parts += [percentile(values, 0.5), percentile(values, 0.99)]
        return (*parts, f"{self.foreign:.0%}")


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what was found, what was wanted, and whether that is met. `sure`: others left the machine alone."""

    what: str
    found: float
    wanted: str
    met: bool
    sure: bool = True

    def __str__(self) -> str:
        verdict = ("met   " if self.met else "MISSED") if self.sure else "unsure"
        busy = "" if self.sure else ": others were busy"
        return f"{verdict}  {self.what}: {self.found:.3f} (wanted {self.wanted}){busy}"


def goals(scene: Scene, results: Mapping[Arm, Figures]) -> list[Goal]:
    """Return the goals of a scene's arms."""
    found = []
    for arm, figures in results.items():
        name = f"{scene.name}, {arm.name}"
        found.append(_least(f"{name}: reuse", figures.reuse, MIN_REUSE))
        found.append(_most(f"{name}: other tenant's probe", figures.probe, 0))
        if figures.mistold:
            found.append(_most(f"{name}: cache endpoint wrong by", max(figures.mistold), scene.page))
        if arm.naive:
            found.append(_most(f"{name}: share cached", figures.share, MAX_NAIVE_SHARE))
        if arm.idle:
            found.append(_share(name, figures))
            of_bound = figures.share / max(figures.bound, 1e-9)
            found.append(_least(f"{name}: share cached, of what is possible", of_bound, MIN_OF_BOUND))
            over = percentile(figures.over, 0.99)
            found.append(_most(f"{name}: foreground prefill beyond what is new, p99", over, scene.page))
        if arm.idle and scene.conversations == 1:
            calm = figures.foreign <= MAX_FOREIGN
            found.append(_most(f"{name}: TTFT p99/p50", figures.spread, MAX_SPREAD, sure=calm))
    return found + _costs(scene, results)


def amid_goals(amid: Mapping[str, float]) -> list[Goal]:
    """Return the goals of turns that come amid idle work (see `amid`): they wait for one step of it at most."""
    if not amid:
        return []
    delay = amid["amid p50"] - amid["quiet p50"]
    return [
        _most("amid idle work for somebody else: TTFT p50 longer by, in ms", delay, round(amid["step max"]))
    ]


def _costs(scene: Scene, results: Mapping[Arm, Figures]) -> list[Goal]:
    """Compare each policy's TTFT with idle work to the same without."""
    by_name = {arm.name: figures for arm, figures in results.items()}
    found = []
    for arm, figures in results.items():
        without = by_name.get(arm.name.removesuffix(" + idle"))
        if arm.idle and without is not None:
            cost = percentile(figures.ttft, 0.99) / percentile(without.ttft, 0.99) - 1
            calm = max(figures.foreign, without.foreign) <= MAX_FOREIGN
            found.append(_most(f"{scene.name}, {arm.name}: cost in TTFT p99", cost, MAX_IDLE_COST, sure=calm))
    return found


def _share(name: str, figures: Figures) -> Goal:
    """Say, too, where no cache could reach the goal: its pages are too large beside such short turns."""
    goal = _least(f"{name}: share cached", figures.share, MIN_SHARE)
    out_of_reach = f"{goal.wanted}, but no cache can exceed {figures.bound:.3f}"
    return goal if figures.bound >= MIN_SHARE else replace(goal, wanted=out_of_reach)


def _least(what: str, found: float, wanted: float) -> Goal:
    return Goal(what, found, f"≥ {wanted:g}", found >= wanted)


def _most(what: str, found: float, wanted: float, *, sure: bool = True) -> Goal:
    return Goal(what, found, f"≤ {wanted:g}", found <= wanted, sure)
