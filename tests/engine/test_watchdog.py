"""Silence: of one request, of all schedulers, and what is not silence."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.contract import EngineLost, EngineStalled
from engine.questions import Questions
from engine.settings import EngineSettings, patience
from engine.stream import Stream
from engine.watchdog import Wait, Watchdog

SETTINGS = EngineSettings(Path("m"), "m", silence=0.2)


def test_a_request_is_stalled_only_while_somebody_waits():
    """A slow reader is not the engine's silence; each token begins the wait anew."""
    watchdog = Watchdog(silence=5, heard_at=0)
    watchdog.waits["reading"] = Wait(patience=5)
    watchdog.waits["waiting"] = wait = Wait(patience=5, since=1)
    assert watchdog.stalled(6) == []
    assert watchdog.stalled(6.1) == ["waiting"]
    wait.since = 6
    assert watchdog.stalled(6.1) == []


def test_any_new_word_is_a_sign_of_life():
    """The same word again is none."""
    watchdog = Watchdog(silence=5, heard_at=0)
    watchdog.heard("a", 3)
    watchdog.heard("a", 7)
    assert watchdog.silent(8) is None
    assert watchdog.silent(8.5) == 5.5
    watchdog.heard("b", 9)
    assert watchdog.silent(10) is None


def test_schedulers_that_compute_have_more_time():
    """On a machine that is overrun they answer late; but not for ever, and not once they have stopped computing."""
    watchdog = Watchdog(silence=5, heard_at=0)
    watchdog.worked_at = 8
    assert watchdog.silent(12) is None
    assert watchdog.silent(13.5) == 13.5
    watchdog.worked_at = 20
    assert watchdog.silent(20) is None
    assert watchdog.silent(20.5) == 20.5


def test_time_in_which_nobody_listened_is_no_silence():
    """This process was stopped itself: neither the schedulers nor a request were late."""
    watchdog = Watchdog(silence=5, heard_at=0)
    watchdog.waits["waiting"] = Wait(patience=5, since=1)
    watchdog.waits["reading"] = Wait(patience=5)
    watchdog.away(10)
    assert watchdog.silent(14) is None
    assert watchdog.stalled(14) == []
    assert watchdog.silent(15.5) == 5.5
    assert watchdog.stalled(16.5) == ["waiting"]


def test_long_prompts_have_more_patience():
    """Ten minutes for 30,000 tokens on a CPU, half a minute more on a GPU."""
    assert patience(SETTINGS, 30_000) == pytest.approx(600.2)
    assert patience(EngineSettings(Path("m"), "m", device="cuda", silence=0.2), 30_000) == pytest.approx(30.2)


async def test_questions_are_answered_by_their_ids():
    """By every group, whatever their order; late answers go to nobody; waiting ones are bounded."""
    sent: list = []
    questions = Questions(sent.append, groups=2)
    one, other = (asyncio.create_task(questions.ask(SimpleNamespace(), 5)) for _ in range(2))
    await asyncio.sleep(0)
    for question in (sent[1], sent[0], sent[0], sent[1]):
        questions.answered(SimpleNamespace(rid=question.rid))
    assert [answer.rid for answer in await one] == [sent[0].rid] * 2
    assert [answer.rid for answer in await other] == [sent[1].rid] * 2
    with pytest.raises(TimeoutError):
        await questions.ask(SimpleNamespace(), 0.01)
    questions.answered(SimpleNamespace(rid=sent[2].rid))
    waiting = [asyncio.create_task(questions.ask(SimpleNamespace(), 5)) for _ in range(256)]
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await questions.ask(SimpleNamespace(), 5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


class _Exchange:
    """The way to schedulers that give each request one token and then nothing, but to "fff…" 40 more."""

    def __init__(self) -> None:
        self.received = 0
        self.aborted: list[str] = []
        self._streams: dict[str, Stream] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, request_id, ids, sampling, wait, **more) -> Stream:
        stream = self._streams[request_id] = Stream(wait)
        self._tasks.append(asyncio.create_task(self._generate(request_id, stream)))
        return stream

    async def _generate(self, request_id, stream) -> None:
        more = 40 if request_id == "f" * 32 else 0
        for left in range(more, -1, -1):
            await asyncio.sleep(0.02)
            finish = {"type": "length"} if more and not left else None
            stream.put(SimpleNamespace(cached_tokens=[0], output_ids=[[1]], finished_reasons=[finish]), 0)

    def close(self, request_id, *, abort) -> None:
        if not self._streams.pop(request_id).over and abort:
            self.aborted.append(request_id)

    def fail(self, error) -> None:
        for stream in self._streams.values():
            stream.fail(error)

    def fail_one(self, request_id, error) -> None:
        self._streams[request_id].fail(error)


class _Runtime:
    """SGLang's side; pings are answered while `alive`."""

    def __init__(self) -> None:
        self.alive = True
        self.hold_up = 0.0
        self.used, self.use = 0.0, 0.0
        self.exchange = _Exchange()

    def processor_seconds(self) -> float:
        self.used += self.use
        return self.used

    async def pool(self, timeout: float):
        if self.hold_up:
            time.sleep(self.hold_up)  # the whole process is held up
            self.hold_up = 0.0
            raise TimeoutError
        if not self.alive:
            await asyncio.sleep(0.02)
            raise TimeoutError
        self.exchange.received += 1


@pytest.fixture
async def watched(monkeypatch):
    """Schedulers over `_Runtime`, being watched; in whatever the machine holds up this process nobody listened."""
    monkeypatch.setattr("engine.schedulers.AWAY_SECONDS", 0.05)
    from engine.schedulers import Schedulers

    runtime, lost = _Runtime(), asyncio.get_running_loop().create_future()
    schedulers = Schedulers(cast(Any, runtime), SETTINGS, lost, lost.set_result)
    watching = asyncio.create_task(schedulers.keep_watch())
    yield runtime, schedulers
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def outputs(schedulers, request_id: str) -> int:
    """Return how many outputs a request had, all of them."""
    return sum([len(chunk.ids) async for chunk in schedulers.run(request_id, [1, 2], {}, "")])


@pytest.mark.sglang
async def test_a_request_that_gets_nothing_ends_alone(watched):
    """It is aborted with an error that says how long it waited; one beside it is not touched."""
    runtime, schedulers = watched
    steady = asyncio.create_task(outputs(schedulers, "f" * 32))
    with pytest.raises(EngineStalled, match=r"no token came for \d+ s"):
        await asyncio.wait_for(outputs(schedulers, "0" * 32), 60)
    assert runtime.exchange.aborted == ["0" * 32]
    assert await steady == 41
    assert schedulers.running == 0


@pytest.mark.sglang
async def test_schedulers_that_say_nothing_are_lost(watched):
    """Requests end with EngineLost, not as stalled: they can go on elsewhere."""
    runtime, schedulers = watched
    runtime.alive = False
    with pytest.raises(EngineLost, match=r"the scheduler said nothing for \d+ s"):
        await asyncio.wait_for(outputs(schedulers, "0" * 32), 60)


@pytest.mark.sglang
async def test_schedulers_are_not_lost_while_nobody_listens(watched, monkeypatch):
    """The event loop stands still for longer than the silence that is allowed: afterwards they are asked again."""
    monkeypatch.setattr("engine.schedulers.PING_SECONDS", 0.05)
    runtime, schedulers = watched
    runtime.hold_up = 1.0
    assert await outputs(schedulers, "f" * 32) == 41
    assert runtime.hold_up == 0.0
    assert not schedulers._lost.done()


@pytest.mark.sglang
async def test_silent_schedulers_at_work_are_lost_later(watched):
    """Four times as late as those that do nothing."""
    runtime, schedulers = watched
    runtime.alive, runtime.use = False, 1.0
    with pytest.raises(EngineLost, match=r"the scheduler said nothing for [1-9]\d* s"):
        await asyncio.wait_for(outputs(schedulers, "0" * 32), 60)
