"""The hub: one subscription a web process, any number of readers.

    store ──bundle──> Hub ──records──> Follower's buffer ──batch()──> one connection
                       │                    ▲
                       └── watch/unwatch    └── history, read from the store

A follower watches, then reads history, then takes what is live, through one cursor: whatever is lost,
doubled or cut differently on the way, it hands out every token once, in order. A lost announcement
only costs time: where a follower has heard nothing for some seconds, the hub asks how far the tape is.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import islice

from chatserver.domain.tape import Record
from chatserver.errors import Unavailable
from chatserver.ports.tapes import Bundle, Signals, Tapes
from chatserver.service.web.follower import RESTARTING, Follower
from chatserver.service.web.patience import pause_lengths
from chatserver.service.web.rounds import rounds

log = logging.getLogger(__name__)

LINGER = 2.0
"""Seconds between the last follower's leaving and the end of the watch: reloads come back within it."""
MAX_LINGERING = 1024
MAX_EARLY = 64
"""Records of a turn that are kept until it is followed: there are a few, if any. Past that the tape is read."""
WATCH_ON = 20.0
"""Seconds between saying again what is watched; see `Settings.abandon_after`."""
WATCH_STEP = 500
"""Tapes in one round trip of that, and of the looks for lost announcements."""
SWEEP = 1.0
"""Seconds between looks for followers that have heard nothing for long."""


class Hub:
    """Hands announced records to the followers of this process. Start it before the first `follow`."""

    def __init__(self, tapes: Tapes, signals: Signals, web_id: str) -> None:
        self.web_id = web_id
        """The name under which this process is announced to; a NewTurn's `watcher`."""
        self._tapes = tapes
        self._signals = signals
        self._followers: dict[str, set[Follower]] = {}
        self._expected: dict[str, list[Record] | None] = {}
        self._staying: set[Follower] = set()
        self._dismissal: Unavailable | None = None
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._unwatching: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._said_at = 0.0
        """The loop's time when it was last said of all tapes that they are watched."""

    async def start(self) -> None:
        """Begin to listen. Returns at once; until the subscription stands, followers live on reads alone."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="hub")
            self._sweeping = asyncio.create_task(
                rounds(self._sweep, SWEEP, "the hub's sweep"), name="hub sweep"
            )

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        tasks = [*self._unwatching, *filter(None, (self._listening, self._sweeping))]
        self._listening = self._sweeping = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def expect(self, response_id: str) -> None:
        """Keep what is announced of a turn that is about to begin with this hub as its watcher.

        `follow` takes it, so that nothing has to be read then; otherwise `forget` it.
        """
        self._expected[response_id] = []

    def forget(self, response_id: str) -> None:
        """Expect it no longer: the turn did not begin, or nobody is going to follow it."""
        self._expected.pop(response_id, None)

    def follow(
        self, response_id: str, after: int = -1, *, watched: bool = False, dismissible: bool = True
    ) -> Follower:
        """Return a follower of a tape from position `after` on; close it in the end.

        `watched`: the watch stands already, because the turn was begun with this hub as its watcher.
        `dismissible`: the reader can resume elsewhere, so `dismiss` may end it.
        """
        follower = Follower(
            self._tapes,
            response_id,
            after,
            web_id=self.web_id,
            watched=watched,
            begun=self._expected.pop(response_id, None),
            leave=self._leave,
        )
        timer = self._lingering.pop(response_id, None)
        if timer is not None:
            timer.cancel()
        self._followers.setdefault(response_id, set()).add(follower)
        if not dismissible:
            self._staying.add(follower)
        return follower

    def check(self) -> None:
        """Raise Unavailable if this process is about to stop: nothing should begin here any more."""
        if self._dismissal is not None:
            raise self._dismissal

    def dismiss(self, message: str) -> None:
        """End every reader with a hint to come back, and let `check` refuse new ones: this process is about to stop.

        Readers that cannot resume, of answers that are sent as a whole, stay.
        """
        self._dismissal = Unavailable(message, code=RESTARTING, retry_after=0.5)
        for followers in self._followers.values():
            for follower in followers - self._staying:
                follower.dismiss(self._dismissal)

    def queued(self, limit: int) -> list[str]:
        """Return up to `limit` ids of responses with a reader that waits for an engine."""
        waiting = (name for name, readers in self._followers.items() if any(r.queued for r in readers))
        return list(islice(waiting, limit))

    def tell(self, response_id: str, ahead: int) -> None:
        """Say to the readers of a queued response how many jobs are before it."""
        for follower in self._followers.get(response_id, ()):
            follower.tell(ahead)

    @property
    def following(self) -> int:
        """How many followers there are."""
        return sum(len(followers) for followers in self._followers.values())

    def _leave(self, follower: Follower) -> None:
        """Forget a follower; a tape without any is unwatched a little later."""
        self._staying.discard(follower)
        response_id = follower.response_id
        followers = self._followers.get(response_id)
        if followers is None or follower not in followers:
            return
        followers.discard(follower)
        if not followers:
            del self._followers[response_id]
            if not follower.ended:  # an ended tape announces nothing more
                self._linger(response_id)

    def _linger(self, response_id: str) -> None:
        if response_id in self._lingering or self._listening is None:
            return
        delay = LINGER if len(self._lingering) < MAX_LINGERING else 0.0
        loop = asyncio.get_running_loop()
        self._lingering[response_id] = loop.call_later(delay, self._unwatch_soon, response_id)

    def _unwatch_soon(self, response_id: str) -> None:
        self._lingering.pop(response_id, None)
        task = asyncio.create_task(self._unwatch(response_id))
        self._unwatching.add(task)
        task.add_done_callback(self._unwatching.discard)

    async def _unwatch(self, response_id: str) -> None:
        if response_id in self._followers:
            return
        try:
            await self._tapes.unwatch(response_id, self.web_id)
        except Unavailable:
            # The watch then lives until its tape ends; all it costs is announcements that nobody takes.
            log.debug("could not unwatch %s", response_id)
        if response_id in self._followers:
            # Somebody came back while the store was asked: their watch may have been ended with ours.
            self._resync(response_id)

    async def _listen(self) -> None:
        pauses = pause_lengths()
        while True:
            try:
                async for bundle in self._signals.bundles(self.web_id):
                    if bundle is None:
                        pauses = pause_lengths()
                        # What was announced while nobody listened is in the store.
                        for response_id in list(self._followers):
                            self._resync(response_id)
                        self._expected = dict.fromkeys(self._expected)
                    else:
                        self._hand_out(bundle)
            except Unavailable as error:
                log.warning("the subscription to the store was lost: %s", error)
            except Exception:
                # A bundle that cannot be read must not leave every reader with slow reads for good.
                log.exception("the subscription to the store broke")
            await asyncio.sleep(next(pauses))

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= WATCH_ON:
            self._said_at = now
            asked = list(self._followers)
        else:
            asked = [name for name, readers in self._followers.items() if any(r.silent(now) for r in readers)]
        for start in range(0, len(asked), WATCH_STEP):
            await self._look(asked[start : start + WATCH_STEP])

    async def _look(self, response_ids: list[str]) -> None:
        """Say that these are watched, and have readers that heard nothing for long read what they have missed."""
        try:
            lasts = await self._tapes.watch(response_ids, self.web_id)
        except Unavailable:
            lasts = [None] * len(
                response_ids
            )  # each silent reader asks for itself then, and says if that is in vain
        now = asyncio.get_running_loop().time()
        for response_id, last in zip(response_ids, lasts, strict=True):
            for follower in self._followers.get(response_id, ()):
                if follower.silent(now):
                    follower.compare(last, now)

    def _resync(self, response_id: str) -> None:
        for follower in self._followers.get(response_id, ()):
            follower.resync()

    def _hand_out(self, bundle: Bundle) -> None:
        for response_id, records in bundle:
            followers = self._followers.get(response_id)
            if followers:
                for follower in followers:
                    follower.offer(records)
            elif response_id in self._expected:
                self._keep(response_id, records)
            elif response_id not in self._lingering:
                # A turn that was begun with a watch, and whose client never came to read.
                self._linger(response_id)

    def _keep(self, response_id: str, records: list[Record]) -> None:
        kept = self._expected[response_id]
        if kept is not None:
            lost = len(kept) + len(records) > MAX_EARLY
            self._expected[response_id] = None if lost else [*kept, *records]
