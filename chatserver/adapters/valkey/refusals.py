"""What a script's first word means, as an error of ours."""

from __future__ import annotations

from chatserver.errors import ChatServerError, Conflict, NotFound, Overloaded
from chatserver.ports.conversations import MAX_BRANCH

OVERLOADED_RETRY = 2.0
"""Seconds after which a refused turn may find room in the queue."""


def refused(state: bytes, missing: NotFound) -> ChatServerError | None:
    """Return the error that a script's first word means, or None. `missing`: for what was not there."""
    if state == b"missing":
        return missing
    if state in _CONFLICTS:
        code, message = _CONFLICTS[state]
        return Conflict(message, code=code)
    if state == b"reused":
        return reused_key()
    if state == b"no_parent":
        return NotFound("the item to continue from is not in this conversation", param="parent")
    if state == b"no_item":
        return NotFound("no such item in this conversation", param="item_id")
    if state == b"overloaded":
        return Overloaded("too many answers are waiting; try again soon", retry_after=OVERLOADED_RETRY)
    return None


def reused_key() -> Conflict:
    """Return the error for an idempotency key that came with another request before."""
    return Conflict(
        "this Idempotency-Key was used with another request; use a new one", code="idempotency_key_reused"
    )


_CONFLICTS = {
    b"busy": ("conversation_busy", "a turn of this conversation is still running; wait for it or stop it"),
    b"running": ("response_running", "the response is still running; stop it first"),
    b"moved": ("conversation_moved", "the conversation has moved on since; read it again"),
    b"full": ("conversation_full", f"a branch holds at most {MAX_BRANCH} items; start a new conversation"),
    b"taken": ("id_taken", "an item or conversation with this id exists already"),
}
