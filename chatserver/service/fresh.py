"""New ids."""

from __future__ import annotations

import os
import time

from chatserver.domain.ids import ENTROPY_BYTES, TIME_BYTES, new_id, timed


def fresh_id(kind: str, shard: int) -> str:
    """Return a new id that nobody can guess and that sorts behind those made before."""
    return new_id(kind, shard, timed(time.time_ns(), os.urandom(ENTROPY_BYTES - TIME_BYTES)))
