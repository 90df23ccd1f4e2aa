"""Stock SGLang's HTTP server over a scheduler that only counts. `python -m tests.bench.relay.stock PORT RATE`.

    tests/bench client ── HTTP ──> stock server, its tokenizer manager (measured)
                                      │ ZMQ                    ▲
                                   the stub ─ token ids ─> stock detokenizer

All but the scheduler is SGLang as it is installed: this is what users of its server have.
"""

from __future__ import annotations

import os
import sys
import time
from array import array
from dataclasses import dataclass
from typing import Any

from engine.cpu import vision_shim
from engine.settings import EngineSettings, prepare_environment
from tests.program import MODELS

vision_shim.install()  # before anything of SGLang's is imported, here and in the spawned processes

MODEL = MODELS / "smollm2-135m-instruct"
PROSE = " the sea rises and falls twice a day because the moon draws the water nearest to it most"
CONTEXT = 8192


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
        return _output(batch) if batch else None


def _output(batch: list[tuple[Request, list[int]]]) -> Any:
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


def run_stub(server_args: Any, port_args: Any, *rest: Any) -> None:
    """Stand in for SGLang's scheduler process."""
    import zmq
    from sglang.srt.managers.io_struct import (
        sock_recv,
        sock_send,
    )
    from sglang.srt.utils.network import get_zmq_socket
    from transformers import AutoTokenizer

    pipe = next(part for part in rest if hasattr(part, "send"))
    rate = float(os.environ["STUB_RATE"])
    context = zmq.Context(1)
    requests: Any = get_zmq_socket(context, zmq.PULL, port_args.scheduler_input_ipc_name, False)
    detokenizer: Any = get_zmq_socket(context, zmq.PUSH, port_args.detokenizer_ipc_name, False)
    stub = Stub(rate, AutoTokenizer.from_pretrained(MODEL).encode(PROSE))
    pipe.send(
        {"status": "ready", "max_total_num_tokens": 10**7, "max_req_input_len": CONTEXT, "startup_time": 0.0}
    )
    due = time.monotonic()
    while True:
        while requests.poll(0):
            message = sock_recv(requests)
            for one in getattr(message, "batch", None) or [message]:
                if type(one).__name__ == "TokenizedGenerateReqInput":
                    stub.requests[one.rid] = Request(
                        one.rid, len(one.input_ids), one.sampling_params.max_new_tokens
                    )
        if (output := stub.step(due)) is not None:
            sock_send(detokenizer, output)
        due = max(due + 1 / rate, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def main(port: int, rate: float) -> None:
    """Serve until terminated."""
    os.environ["STUB_RATE"] = str(rate)
    prepare_environment(EngineSettings(MODEL, "stock"))
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import ServerArgs

    arguments: dict[str, Any] = {
        "model_path": str(MODEL),
        "served_model_name": "scripted",
        "device": "cpu",
        "dtype": "float32",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "context_length": CONTEXT,
        "host": "127.0.0.1",
        "port": port,
        "log_level": "error",
        "skip_server_warmup": True,
    }
    launch_server(ServerArgs(**arguments), run_scheduler_process_func=run_stub)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
