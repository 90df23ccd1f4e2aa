"""How often the garbage collector looks, in every role that serves many at once."""

from __future__ import annotations

import gc

COLLECT_EVERY = 5_000
"""Objects, by which more were made than freed, between two looks at the youngest; Python's own choice is 700."""


def settle() -> None:
    """Have the garbage collector leave alone what was loaded, and look less often at what comes and goes.

    A start makes some hundreds of objects that live as long as its answer; up to a third of its time went into looking
    at them. A look at all that was loaded takes 30 ms, with SGLang more, in which nobody gets a token.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
