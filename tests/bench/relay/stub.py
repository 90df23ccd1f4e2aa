"""A scheduler that only counts, in place of SGLang's: it speaks SGLang's messages, and computes nothing."""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import dataclass
from typing import Any

from tests.program import MODELS

MODEL = MODELS / "smollm2-135m-instruct"
PROSE = " the sea rises and falls twice a day because the moon draws the water nearest to it most"
CONTEXT = 8192
RATE = "STUB_RATE"
"""Environment variable: tokens a second of each request."""
POOL = 10**7
"""Tokens that its KV pool is said to have."""


@dataclass(slots=True)
class Request:
    """One request as the stub sees it."""

    id: str
    prompt: int
    tokens: int
    first: float = 0.0
    sent: int = 0


class Stub:
    """Emits what is due of every request, one batch a step and from its first step on, as a scheduler does."""

    def __init__(self, rate: float, ids: list[int]) -> None:
        self._rate, self._ids = rate, ids
        self.requests: dict[str, Request] = {}

    def step(self, now: float) -> Any:
        """Return the batch that is due at `now`, when the step was to be, or None."""
        batch: list[tuple[Request, list[int]]] = []
        for request in list(self.requests.values()):
            request.first = request.first or now
            due = min(int((now - request.first) * self._rate + 1e-6) + 1, request.tokens)
            if due > request.sent:
                batch.append((request, [self._ids[i % len(self._ids)] for i in range(request.sent, due)]))
                request.sent = due
            if due == request.tokens:
                del self.requests[request.id]
        return output(batch) if batch else None


def output(batch: list[tuple[Request, list[int]]]) -> Any:
    """Return SGLang's output of a step: of each request what is new, `sent` being what it has by now."""
    from sglang.srt.managers.io_struct import BatchTokenIDOutput

    count = len(batch)
    ended = [{"type": "length", "length": r.tokens} if r.sent == r.tokens else None for r, _ in batch]
    empty = dict.fromkeys(
        name for name in BatchTokenIDOutput.__struct_fields__ if "logprobs" in name or "_ids_" in name
    )
    return BatchTokenIDOutput(
        **empty,
        rids=[r.id for r, _ in batch],
        finished_reasons=ended,
        decoded_texts=[""] * count,
        decode_ids=[array("q", ids) for _, ids in batch],
        read_offsets=[0] * count,
        output_ids=[array("q", ids) for _, ids in batch],
        skip_special_tokens=[True] * count,
        spaces_between_special_tokens=[True] * count,
        no_stop_trim=[False] * count,
        prompt_tokens=[r.prompt for r, _ in batch],
        reasoning_tokens=[0] * count,
        completion_tokens=[r.sent for r, _ in batch],
        cached_tokens=[0] * count,
        output_token_entropy_val=None,
        output_token_sampling_mask=None,
        output_hidden_states=None,
        routed_experts=None,
        indexer_topk=None,
        placeholder_tokens_idx=None,
        placeholder_tokens_val=None,
        retraction_counts=[0] * count,
    )


def _pool(rid: str, *, idle: bool) -> Any:
    from engine.scheduler_messages import PoolReqOutput

    return PoolReqOutput(rid=rid, idle=idle, free=POOL, cached=0, total=POOL)


def run_stub(server_args: Any, port_args: Any, *rest: Any) -> None:
    """Stand in for SGLang's scheduler process."""
    import zmq
    from sglang.srt.managers.io_struct import sock_recv, sock_send
    from sglang.srt.managers.load_snapshot import ShmLoadSnapshotWriter, shm_path_for
    from sglang.srt.utils.network import get_zmq_socket
    from transformers import AutoTokenizer

    pipe = next(part for part in rest if hasattr(part, "send"))
    rate = float(os.environ[RATE])
    context = zmq.Context(1)
    requests: Any = get_zmq_socket(context, zmq.PULL, port_args.scheduler_input_ipc_name, False)
    outputs: Any = get_zmq_socket(context, zmq.PUSH, port_args.detokenizer_ipc_name, False)
    ShmLoadSnapshotWriter(shm_path_for(port_args.instance_id), 1, 0)
    stub = Stub(rate, AutoTokenizer.from_pretrained(server_args.model_path).encode(PROSE))
    pipe.send(
        {"status": "ready", "max_total_num_tokens": POOL, "max_req_input_len": CONTEXT, "startup_time": 0.0}
    )
    due = time.monotonic()
    while True:
        while requests.poll(0):
            message = sock_recv(requests)
            for one in getattr(message, "batch", None) or [message]:
                kind = type(one).__name__
                if kind == "PoolReqInput":  # our engine's ping
                    sock_send(outputs, _pool(one.rid, idle=not stub.requests))
                elif kind == "TokenizedGenerateReqInput":
                    stub.requests[one.rid] = Request(
                        one.rid, len(one.input_ids), one.sampling_params.max_new_tokens
                    )
        if (stepped := stub.step(due)) is not None:
            sock_send(outputs, stepped)
        due = max(due + 1 / rate, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
