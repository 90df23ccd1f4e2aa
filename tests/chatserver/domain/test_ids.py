"""Ids: well-formed, in the order of time, and nothing about them can be guessed from another."""

from itertools import pairwise

from chatserver.domain.ids import ENTROPY_BYTES, TIME_BYTES, new_id, shard_of, time_of, timed
from chatserver.service.fresh import fresh_id


def test_ids_sort_by_when_they_were_made():
    """Also within a second, and to the year 2554."""
    guess = bytes(ENTROPY_BYTES - TIME_BYTES)
    times = (0, 256, 1_700_000_000_000_000_000, 1_700_000_000_000_001_000, 2**64 - 1)
    ids = [new_id("msg", 3, timed(now, guess)) for now in times]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert [shard_of(one, "msg") for one in ids] == [3] * len(ids)
    assert time_of(ids[3]) == timed(times[3], guess)[:TIME_BYTES]


def test_fresh_ids_share_nothing_but_their_time():
    """Two of one moment have 64 bits that differ at random."""
    ends = {fresh_id("resp", 0)[-16:] for _ in range(1000)}
    assert len(ends) == 1000
