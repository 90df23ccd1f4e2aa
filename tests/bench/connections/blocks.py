"""Do readers that stall make the others wait? Short blocks in one run, without and with them, in random order.

    the streams    ────────────────────────────────────────────────>    the same ones all the time
    who stalls     none   some   none │ some   none   none │ none …     rows of three blocks

Whatever else the machine does strikes all kinds of blocks alike. What is left of that is told by an interval, from
drawing the rows again and again, and by the control: the one block of a row without stalled readers to the other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.connections.arms import Figures, Load, filled, stall
from tests.bench.connections.readers import RAMP, follow, open_all
from tests.bench.relay import client
from tests.bench.relay.client import SSE, Socket, Stream
from tests.bench.relay.processes import cpu_seconds
from tests.bench.report import percentile
from tests.fleet import Process

ALONE, STALLED, AGAIN = "alone", "10 % stalled", "alone again"
SETTLE = 0.8
"""Seconds before and behind each block."""
FILLED = 4.0
"""Seconds in which the buffers of those who stall are full, about."""
SPARE = 20.0
"""Seconds that the streams last longer than the blocks would take on a machine without other work."""
BEGUN = 10
"""Pieces of a stream that came when it has begun."""
KEPT_UP = 0.8
"""Share of the tokens that are due which must come in a block."""
DRAWS = 2000
"""How often the rows are drawn for the interval."""


@dataclass(frozen=True, slots=True)
class Block:
    """What was measured from `since` to `until`, and the CPU that the web process took."""

    since: float
    until: float
    cpu: float


async def blocks(web: Process, load: Load, rows: int, long: bytes) -> list[dict[str, Figures]]:
    """Run the streams through up to `rows` times three blocks of `load.seconds`; return p50, p99 and CPU of each.

    One in ten readers stalls in the answer `long`, half of them over SSE, half over WebSocket.
    """
    stalled = load.streams // 10
    each = 3 * (SETTLE + load.seconds + SETTLE) + FILLED
    tokens = int(load.rate * (load.streams / RAMP + rows * each + SPARE))
    opened = await open_all(lambda: Socket(SSE.request(web.port, tokens), SSE.ends), load.streams, web.port)
    async with asyncio.timeout(30):
        while any(len(one.arrivals) < BEGUN for one in opened):
            await asyncio.sleep(0.2)
    taken = []
    while len(taken) < rows:
        row = await _row(web, load.seconds, stalled, long)
        if any(one.ended.done() for one in opened):
            break  # on a busy machine buffers take longer to fill than the streams were made for
        taken.append(row)
    async with asyncio.timeout(client.READ_WITHIN):
        await asyncio.gather(*(one.ended for one in opened))
    read = [client.parse(SSE, one.arrivals) for one in opened]
    assert {one.tokens for one in read} == {tokens}
    steady = [row for row in taken if all(_steady(block, read, load.rate) for block in row.values())]
    assert steady, "the engine stood still in every row: the machine is too busy to measure anything"
    return [{name: _figures(block, read, load.rate) for name, block in row.items()} for row in steady]


async def _row(web: Process, seconds: float, stalled: int, long: bytes) -> dict[str, Block]:
    """Measure the three kinds once, in a random order."""
    found = {}
    for name in random.sample((ALONE, STALLED, AGAIN), 3):
        count = stalled if name == STALLED else 0
        stuck = await stall(web, count, follow(long), long)
        if count:
            await filled(web, every=0.4)  # to fill them is history read, which every late reader costs
        await asyncio.sleep(SETTLE)
        cpu, since = cpu_seconds(web.pid), time.perf_counter()
        await asyncio.sleep(seconds)
        found[name] = Block(since, time.perf_counter(), cpu_seconds(web.pid) - cpu)
        for one in stuck:
            one.close()
        await asyncio.sleep(SETTLE)
    return found


def _steady(block: Block, read: Sequence[Stream], rate: float) -> bool:
    """Whether about as many tokens came as were due; if not, the engine itself had no processor."""
    due = (block.until - block.since) * rate * len(read)
    came = sum(count for one in read for at, _, count in one.pieces if block.since <= at < block.until)
    return came >= KEPT_UP * due


def _figures(block: Block, read: Sequence[Stream], rate: float) -> Figures:
    """How late tokens were, in ms, behind the earliest schedule that each stream kept in the block."""
    late: list[float] = []
    for stream in read:
        number, dues = 0, []
        for at, _, count in stream.pieces:
            number += count
            if block.since <= at < block.until:
                dues.append(at - number / rate)
        start = min(dues, default=0.0)
        late += [(due - start) * 1000 for due in dues]
    return {
        "p50 ms": median(late),
        "p99 ms": percentile(late, 0.99),
        "CPU share": block.cpu / (block.until - block.since),
    }


def to_alone(rows: Sequence[dict[str, Figures]], name: str, figure: str) -> tuple[float, float, float]:
    """Return the median over the rows of a figure's ratio to `ALONE`, and the ends of its 95 % interval."""
    found = [row[name][figure] / row[ALONE][figure] for row in rows]
    draws = sorted(median(random.choices(found, k=len(found))) for _ in range(DRAWS))
    return median(found), draws[int(0.025 * DRAWS)], draws[int(0.975 * DRAWS)]
