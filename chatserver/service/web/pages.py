"""Pages of a tape: how much of it is read at once, and its adjacent deltas as one."""

from __future__ import annotations

from chatserver.domain.tape import Delta, Record, joined

PAGE = 500
"""Records in one read, at most."""
READ_TOKENS = 2048
"""Tokens in one read, about: what is read at once is in memory at once."""


def page_after(records: list[Record], limit: int) -> int:
    """Return how many records to read next, if a read of up to `limit` brought these."""
    if not records:
        return limit
    tokens = records[-1].last - records[0].first + 1
    return max(1, min(PAGE, READ_TOKENS * len(records) // tokens))


def join(records: list[Record]) -> list[Record]:
    """Return the records with adjacent deltas merged, in one pass over the pieces."""
    if len(records) < 2:
        return records
    found: list[Record] = []
    run: list[tuple[Record, Delta]] = []
    for record in records:
        body = record.body
        if type(body) is Delta and (
            not run or (record.last - len(body.pieces) == run[-1][0].last and run[-1][1].joins(body))
        ):
            run.append((record, body))
            continue
        _close(run, found)
        run = []
        if type(body) is Delta:
            run.append((record, body))
        else:
            found.append(record)
    _close(run, found)
    return found


def _close(run: list[tuple[Record, Delta]], found: list[Record]) -> None:
    if len(run) == 1:
        found.append(run[0][0])
    elif run:
        found.append(Record(run[-1][0].last, joined([delta for _, delta in run])))
