"""What SGLang's scheduler processes run first.

A spawned process unpickles its target before its arguments, so this module is imported before
anything of SGLang's, which is the only moment at which the torchvision shim can be put in place
there. That is why it works at import, alone in this package.
"""

from __future__ import annotations

import gc
import multiprocessing
from typing import Any

from engine import launch_record
from engine.cpu import vision_shim

if multiprocessing.parent_process() is not None:
    gc.disable()  # unpickling the arguments imports SGLang, see `engine.imports`; until `run_scheduler`

vision_shim.install()

# after the shim; also where SGLang only passes messages on
from engine import expert_counter, grammar_state, one_tokenizer, scheduler_messages  # noqa: E402


def run_scheduler(*args: Any, **kwargs: Any) -> None:
    """Run SGLang's scheduler process with SGLang's own arguments until it ends."""
    launch_record.record()
    scheduler_messages.install()
    expert_counter.install()
    one_tokenizer.install()
    grammar_state.install()
    from sglang.srt.managers.scheduler import run_scheduler_process  # noqa: PLC0415 — after the shim

    gc.freeze()  # what was imported stays
    gc.enable()
    run_scheduler_process(*args, **kwargs)
