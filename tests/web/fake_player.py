"""How the fake server answers: a script becomes the events of a tape, and an item in the end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from tests.web.fake_tape import Tape
from tests.web.fake_tree import Item, Tree, summary

HELD_AFTER = 10
"""Words that an answer has when it stands still."""
RECOVERY = 1.5
"""Seconds for which each state of a recovery stands: longer than a test's pause between two looks."""


async def play(tape: Tape, tree: Tree, item: Item, answer: str, carried: str = "") -> None:
    """Write the tape of an answer. `carried`: the text that it begins with, when it goes on."""
    script, response, started = tape.script, tape.response, time.time()
    await tape.write("response.created", response=dict(response))
    await tape.write("response.queued", response=dict(response))
    deadline = time.time() + script.queue
    if script.queue:
        await tape.write("response.queue_position", width=0, position=3)
    while script.queue and (tape.held() or time.time() < deadline) and not tape.stop:
        await asyncio.sleep(0.01)
    sent, thoughts = carried, ""
    if not tape.stop:
        await tape.write("response.in_progress", response={**response, "status": "in_progress"})
        thoughts = await _think(tape)
        place = {"item_id": item["id"], "output_index": 1 if thoughts else 0, "content_index": 0}
        await tape.write("response.output_item.added", output_index=0, item={**item, "content": []})
        await tape.write("response.content_part.added", **place, part={"type": "output_text", "text": ""})
        if carried:
            await tape.write("response.output_text.delta", width=9, **place, delta=carried)
        for count, piece in enumerate(re.findall(r"\S+\s*|\s+", answer)):
            await _stand_still(tape, count)
            if tape.stop or count == script.fail:
                break
            if count == script.recover:
                await _recover(tape)
            await asyncio.sleep(script.gap)
            sent += piece
            await tape.write("response.output_text.delta", width=count % 3 + 1, **place, delta=piece)
        await tape.write("response.output_text.done", **place, text=sent)
    await _end(tape, tree, item, sent, thoughts, time.time() - started)


async def _stand_still(tape: Tape, count: int) -> None:
    while count >= HELD_AFTER and tape.held() and not tape.stop:
        await asyncio.sleep(0.01)


async def _think(tape: Tape) -> str:
    thoughts = ""
    for number in range(tape.script.think):
        await _stand_still(tape, number)
        await asyncio.sleep(tape.script.gap)
        thoughts += f"thought{number} "
        await tape.write("response.reasoning_text.delta", output_index=0, delta=f"thought{number} ")
    if thoughts:
        await tape.write("response.reasoning_text.done", output_index=0, text=thoughts)
    return thoughts


async def _recover(tape: Tape) -> None:
    """The engine dies, and another one goes on."""
    response = {**tape.response, "status": "in_progress"}
    await tape.write("response.in_progress", response=response, recovery={"state": "interrupted"})
    await asyncio.sleep(RECOVERY)
    await tape.write("response.in_progress", response=response, recovery={"state": "resumed", "claim": 2})
    await asyncio.sleep(RECOVERY)


async def _end(tape: Tape, tree: Tree, item: Item, text: str, thoughts: str, seconds: float) -> None:
    failed = tape.script.fail >= 0
    status = "failed" if failed else "cancelled" if tape.stop else "completed"
    item["content"][0]["text"] = text
    item["status"] = "incomplete" if tape.stop or failed else "completed"
    reasoning = {"type": "reasoning", "id": item["id"].replace("msg_", "rs_"), "status": "completed"}
    reasoning |= {
        "content": [{"type": "reasoning_text", "text": thoughts}],
        "response_id": item["response_id"],
    }
    if text:
        tree.add(item, tape.response["parent"], head=tape.response["parent"] == tree.head)
        item["thoughts"] = reasoning if thoughts else None
    context = _context(tree, tape.response["parent"], tape.script.cut)
    tape.response |= {
        "status": status,
        "output": ([reasoning] if thoughts else []) + ([_plain(item)] if text else []),
        "usage": _usage(text, thoughts),
        "timing": {"queued_ms": 2, "prefill_ms": 280.1, "ttft_ms": 312.4, "tokens_per_second": 41.26},
        "context": context,
        "error": {"code": "engine_failed", "message": "The engine went away."} if failed else None,
    }
    tree.running = [it for it in tree.running if it["response_id"] != tape.response["id"]]
    tree.ring()
    kind = {"failed": "response.failed", "cancelled": "response.incomplete"}.get(status, "response.completed")
    await tape.write(kind, response=dict(tape.response))
    tape.ended = True
    async with tape.bell:
        tape.bell.notify_all()


def _plain(item: Item) -> Item:
    return {name: value for name, value in item.items() if name != "thoughts"}


def _usage(text: str, thoughts: str) -> dict[str, Any]:
    return {
        "input_tokens": 1204,
        "input_tokens_details": {"cached_tokens": 1180},
        "output_tokens": len(text) // 4,
        "output_tokens_details": {"reasoning_tokens": len(thoughts) // 4},
    }


def _context(tree: Tree, parent: str | None, cut: int) -> dict[str, Any]:
    """What the model saw; with `cut` all but the newest messages were left out, and are summarised."""
    branch = [item["id"] for item in tree.branch(parent)]
    context: dict[str, Any] = {"window": 4096, "sent": 1204, "dropped": [], "cut": None, "summary": None}
    if not cut or len(branch) <= cut:
        return context
    known = next((item for item in tree.items.values() if item["type"] == "compaction"), None)
    said = summary("They spoke of the sea, and of boats with red sails.")
    made = known or tree.add(said, branch[-cut - 1], head=False)
    return context | {
        "dropped": branch[:-cut],
        "cut": branch[-cut],
        "summary": {"item": made["id"], "tokens": 14},
    }
