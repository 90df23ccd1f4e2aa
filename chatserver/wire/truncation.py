"""What to do when a conversation outgrows the window, as both dialects say it."""

from __future__ import annotations

from typing import Any

from chatserver.domain.response import Params, Truncation
from chatserver.wire.fields import Fields, wrong
from chatserver.wire.sampling import MAX_OUTPUT


def truncation(fields: Fields) -> dict[str, Any]:
    """Take `truncation` and return it as keyword arguments of Params.

    `auto`, `disabled`, or our extension {type: auto | retention_ratio, retention_ratio, token_limits
    {post_instructions}, cut_inside, compaction}: OpenAI's Realtime dialect, and whether one too long message may be
    cut inside, and what a cut drops is summarised.
    """
    value = fields.take("truncation")
    if value is None:
        return {}
    if value in (Truncation.AUTO.value, Truncation.DISABLED.value):
        return {"truncation": Truncation(value)}
    if not isinstance(value, dict):
        raise wrong("truncation", "auto, disabled or an object", value)
    inner = Fields(value, "truncation")
    kind = inner.take("type")
    if kind not in (Truncation.AUTO.value, Truncation.RETENTION_RATIO.value):
        raise wrong("truncation.type", "auto or retention_ratio", kind)
    found: dict[str, Any] = {"truncation": Truncation(kind), "cut_inside": inner.flag("cut_inside")}
    found["compaction"] = inner.flag("compaction")
    limits = inner.take("token_limits")
    if limits is not None:
        within = Fields(limits, "truncation.token_limits")
        found["post_instructions"] = within.whole("post_instructions", None, 1, MAX_OUTPUT)
        within.done()
    if kind == Truncation.RETENTION_RATIO.value:
        default = Params.__dataclass_fields__["retention_ratio"].default
        found["retention_ratio"] = inner.number("retention_ratio", default, 0.1, 1.0)
    inner.done()
    return found
