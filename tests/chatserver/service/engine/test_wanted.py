"""The order of idle work and its share of the time, on a simulated clock."""

import heapq
import random

import pytest

from chatserver.domain.ahead import cut_ahead
from chatserver.domain.item import Role
from chatserver.domain.planner import Policy, Segment, Window, plan_next
from chatserver.domain.response import Truncation
from chatserver.service.engine.rhythm import COMPANY, HASTE, MAX_CONVERSATIONS, PAUSE, Rhythm, share
from chatserver.service.engine.wanted import MAX_WANTED, Prefix, Wanted


def prefix(conversation: str, *, turns: int = 1) -> Prefix:
    return Prefix(conversation, "salt", (1, 2, 3), turns=turns)


def talk(waiting: Wanted, conversation: str, began: float, ended: float) -> None:
    waiting.starts(conversation, conversation, began)
    waiting.answers(conversation)
    waiting.ends(conversation, ended)


def test_whose_turn_comes_first_is_served_first():
    """By each conversation's own pauses, not by who asked first; what may never be needed comes last."""
    waiting = Wanted(ROOM)
    for began, ended in ((0, 2), (12, 14)):
        talk(waiting, "slow", began, ended)
    for began, ended in ((11, 12), (13, 14)):
        talk(waiting, "fast", began, ended)
    waiting.put(prefix("opened", turns=0), 100, 14)
    waiting.put(prefix("slow"), 100, 14)
    waiting.put(prefix("fast"), 100, 14)
    order = []
    while (found := waiting.next()) is not None:
        order.append(found.conversation)
        waiting.drop(found.conversation)
    assert order == ["fast", "slow", "opened"]


def test_what_is_needed_later_is_made_later_and_only_in_company():
    """A cut that comes in three turns stands behind one that comes in the next; alone, there is time enough then."""
    waiting = Wanted(ROOM)
    talk(waiting, "a", 0, 2)
    waiting.put(prefix("a", turns=3), 100, 2)
    assert not waiting
    talk(waiting, "b", 1, 3)
    waiting.put(prefix("a", turns=3), 100, 3)
    waiting.put(prefix("b"), 100, 3)
    assert waiting.next().conversation == "b"
    waiting.drop("b")
    assert waiting.next().conversation == "a"


def test_nothing_is_made_ahead_that_might_push_out_what_is_needed_sooner():
    """With as many conversations as the cache has room for; once some are silent there is room again."""
    waiting = Wanted(ROOM)
    for number in range(ROOM):
        talk(waiting, f"other {number}", 0, 1)
    talk(waiting, "a", 1, 2)
    waiting.put(prefix("a", turns=2), 100, 2)
    assert not waiting
    waiting.put(prefix("a", turns=1), 100, 2)
    assert waiting.next().turns == 1
    talk(waiting, "other 0", COMPANY, COMPANY + 1)
    waiting.put(prefix("a", turns=2), 100, COMPANY + 2)
    assert waiting.next().turns == 2


def test_past_the_bound_what_is_needed_last_goes():
    """What may never be needed first."""
    waiting = Wanted(ROOM)
    waiting.put(prefix("opened", turns=0), 1, 0)
    for number in range(MAX_WANTED):
        waiting.put(prefix(f"c{number}"), 1, number)
    assert len(waiting) == MAX_WANTED
    waiting.put(prefix("one more"), 1, -100)
    assert len(waiting) == MAX_WANTED and waiting.next().conversation == "one more"
    assert all(waiting.next().turns for _ in range(3))


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        ([], 0.25),
        ([(HASTE * 10.0, 1.0)], 0.25),
        ([(HASTE * 10.0, 6.0)], 0.6),
        ([(HASTE * 10.0, 1.0), (HASTE * 2.0, 1.5)], 0.75),
        ([(HASTE * 10.0, 5.0), (HASTE * 5.0, 4.0)], 0.9),
        ([(10.0, 9.0)], 1.0),
        ([(3.0, 4.0)], 1.0),
        ([(-1.0, 0.1), (100.0, 1.0)], 1.0),
    ],
)
def test_the_share_is_what_gets_all_done_in_time(backlog, expected):
    """The least share, the tightest deadline, or all of the time where that is not enough."""
    assert share(backlog, 0.0, 0.25) == pytest.approx(expected)


def test_rhythm_is_bounded_and_has_a_first_guess():
    """A crowd of strangers costs a bounded number of entries, and the first pause is a quick reader's."""
    rhythm = Rhythm()
    for number in range(2 * MAX_CONVERSATIONS):
        rhythm.ends(f"c{number}", float(number))
    assert len(rhythm._beats) == MAX_CONVERSATIONS
    assert rhythm.expects("unknown", 1, 50.0) == 50.0 + PAUSE


ROOM = 16
RULES = {"fixed": 20, "window": Window(1024, 10_000_000, 40), "policy": Policy(Truncation.AUTO, 0.7)}


class Crowd:
    """Conversations on a simulated machine that makes `speed` tokens a second while it may; counts late cuts."""

    def __init__(self, count: int, speed: float, *, lead: bool = True, seed: int = 7) -> None:
        self.source = random.Random(seed)
        self.speed, self.lead = speed, lead
        self.waiting = Wanted(ROOM)
        self.segments = {f"c{n}": [] for n in range(count)}
        self.state = {name: {} for name in self.segments}
        self.made = {}  # by (conversation, cut): tokens that are there
        self.cuts = self.late = 0

    def run(self, turns: int) -> None:
        """Each conversation has so many turns, with pauses of 2 to 6 seconds; work goes on in steps of 0.1 s."""
        events = [(self.source.uniform(0, 4), "begins", name) for name in self.segments]
        heapq.heapify(events)
        now = 0.0
        while events:
            now, what, name = heapq.heappop(events)
            if what == "begins":
                self.begins(name, now)
                heapq.heappush(events, (now + 0.15, "answers", name))
            elif what == "answers":
                self.waiting.answers(name)
                heapq.heappush(events, (now + self.source.uniform(2, 4), "ends", name))
            else:
                self.ends(name, now)
                if len(self.segments[name]) < 2 * turns:
                    heapq.heappush(events, (now + self.source.uniform(2, 6), "begins", name))
            while events and now + 0.1 < events[0][0]:
                now += self.work(now)

    def begins(self, name: str, now: float) -> None:
        self.waiting.starts(name, name, now)
        cut = self.state[name].get("next")
        if cut != self.state[name].get("cut"):
            self.cuts += 1
            self.late += self.made.get((name, cut), 0) < self.state[name]["length"]
            self.state[name]["cut"] = cut
        self.segments[name].append(
            Segment(f"u{len(self.segments[name])}", Role.USER, self.source.randint(20, 45))
        )

    def ends(self, name: str, now: float) -> None:
        state, segments = self.state[name], self.segments[name]
        segments.append(Segment(f"a{len(segments)}", Role.ASSISTANT, self.source.randint(26, 42)))
        chosen = plan_next(segments, **RULES, cut=state.get("next"), ahead=state.get("ahead"))
        soon = cut_ahead(segments, chosen, **RULES, ahead=state.get("ahead")) if self.lead else None
        state |= {"next": chosen.cut, "ahead": soon.plan.cut if soon else None}
        if chosen.cut != state.get("cut"):
            self.want(name, chosen.cut, chosen.start, 1, now)
        elif soon is not None:
            self.want(name, soon.plan.cut, soon.plan.start, 1 + soon.turns, now)
        self.waiting.ends(name, now)

    def want(self, name: str, cut: str, start: int, turns: int, now: float) -> None:
        length = sum(segment.length for segment in self.segments[name][start:])
        self.state[name]["length"] = length
        left = length - self.made.get((name, cut), 0)
        self.waiting.put(Prefix(name, "salt", (length,), cut, turns=turns), left, now)

    def work(self, now: float) -> float:
        """One request of 64 tokens, and the rest that follows it; return how long both took."""
        pace = self.waiting.share(now, self.speed, 0.25)
        found = self.waiting.next()
        if found is None:
            return 0.1
        self.waiting.drop(found.conversation)
        there = min(found.ids[0], self.made.get((found.conversation, found.cut), 0) + 64)
        self.made[found.conversation, found.cut] = there
        if there < found.ids[0]:
            self.waiting.put_back(found, found.ids[0] - there, now)
        seconds = 64 / self.speed
        return max(0.05, seconds / pace if self.waiting.beside else seconds)


def test_sixteen_conversations_have_their_cuts_made_in_time():
    """Where one pause is not enough for all whose cut moves in the same seconds, several are."""
    without = Crowd(16, 500, lead=False)
    without.run(40)
    assert without.late >= 0.1 * without.cuts > 4, "too easy to say anything"
    crowds = [Crowd(16, 500, seed=seed) for seed in (7, 8, 9)]
    for crowd in crowds:
        crowd.run(40)
    assert sum(crowd.late for crowd in crowds) <= 0.03 * sum(crowd.cuts for crowd in crowds)


def test_a_machine_that_is_too_slow_does_what_it_can():
    """Past what it has tokens for, cuts are late; the queue stays bounded and nothing fails."""
    crowd = Crowd(16, 60)
    crowd.run(24)
    assert crowd.late and len(crowd.waiting) <= 16
