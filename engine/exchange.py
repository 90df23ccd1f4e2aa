"""Requests to SGLang's schedulers, and their tokens back, past SGLang's tokenizer manager.

    open ── TokenizedGenerateReqInput ──> schedulers ── BatchTokenIDOutput ──> Stream.put ── take ──> chunks
            (those of one turn of the loop together)

The manager goes on answering for everything else. For a request it keeps what SGLang's HTTP server shows (text, times,
metrics, a log), and makes a dictionary of them for each token; here a token is an id on its way to a tape.
Importing this module imports SGLang; `engine.runtime` does, behind the torchvision shim.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from typing import Any

from sglang.srt.managers.io_struct import AbortReq, BatchTokenIDOutput, async_sock_recv

from engine.contract import EngineError, RequestRefused
from engine.stream import Stream
from engine.watchdog import Wait


class Exchange:
    """The requests that are under way. `manager`: SGLang's tokenizer manager, whose sockets these are.

    Run `receive()` as a task.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._streams: dict[str, Stream] = {}
        self._priority = manager.default_priority_value if manager.enable_priority_scheduling else None
        self._outgoing: list[Any] = []
        """Requests of this turn of the loop: one message for all of them costs little more than one for each."""
        self.received = 0
        """Messages that came: each is a sign of life."""

    async def receive(self) -> None:
        """Take the schedulers' messages until cancelled."""
        manager = self._manager
        with manager.soft_watchdog.disable():  # it watches SGLang's own loop in place of this one
            while True:
                message = await async_sock_recv(manager.recv_from_detokenizer)
                self.received += 1
                if isinstance(message, BatchTokenIDOutput):
                    self._deliver(message)
                elif isinstance(message, AbortReq):
                    self._dropped(message)
                else:
                    manager._result_dispatcher(message)

    def open(
        self,
        request_id: str,
        ids: Sequence[int],
        sampling: dict[str, Any],
        wait: Wait,
        *,
        salt: str,
        logprobs: int | None,
        thinks: bool,
    ) -> Stream:
        """Send a request; return what will come of it, to be given back with `close`.

        `logprobs`: of the answer only; those of a prompt would make SGLang compute its cached prefix again.
        Raises RequestRefused, also for an id that is under way.
        """
        if request_id in self._streams:
            raise RequestRefused(f"request {request_id} is running already")
        manager = self._manager
        message = manager.tokenized_generate_req_type(
            rid=request_id,
            input_text=None,
            input_ids=array("q", ids),
            input_embeds=None,
            mm_inputs=None,
            token_type_ids=None,
            sampling_params=self._sampling(sampling),
            return_logprob=logprobs is not None,
            logprob_start_len=-1,
            top_logprobs_num=logprobs or 0,
            token_ids_logprob=None,
            stream=True,
            require_reasoning=thinks,
            priority=self._priority,
            cache_salt=salt or None,
        )
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._send)
        self._outgoing.append(message)
        stream = self._streams[request_id] = Stream(wait, logprobs)
        return stream

    def abort(self, request_id: str) -> None:
        """Have the schedulers drop a request, whose stream still brings the end. Unknown ids are ignored."""
        stream = self._streams.get(request_id)
        if stream is not None and not stream.over and not stream.aborted:
            stream.aborted = True
            self._send()  # never before its request
            self._manager._dispatch_to_scheduler(AbortReq(rid=request_id))

    def close(self, request_id: str, *, abort: bool) -> None:
        """Forget a request, and have the schedulers drop it unless it is over."""
        if abort:
            self.abort(request_id)
        del self._streams[request_id]

    def fail(self, error: EngineError) -> None:
        """Have all requests fail."""
        self._outgoing.clear()
        for stream in self._streams.values():
            stream.fail(error)

    def fail_one(self, request_id: str, error: EngineError) -> None:
        """Have one request fail. Unknown ids are ignored."""
        if (stream := self._streams.get(request_id)) is not None:
            stream.fail(error)

    def _send(self) -> None:
        batch, self._outgoing = self._outgoing, []
        if len(batch) == 1:
            self._manager._dispatch_to_scheduler(batch[0])
        elif batch:
            self._manager._dispatch_to_scheduler(self._manager.batch_tokenized_generate_req_type(batch=batch))

    def _sampling(self, sampling: dict[str, Any]) -> Any:
        """Return SGLang's form of sampling parameters. Raises RequestRefused for what it does not take."""
        manager = self._manager
        try:
            parameters = manager.sampling_params_class(**(manager.preferred_sampling_params or {}) | sampling)
            parameters.normalize(manager.tokenizer)
            parameters.verify(manager.model_config.vocab_size)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        return parameters

    def _deliver(self, output: Any) -> None:
        for place, request_id in enumerate(output.rids):
            stream = self._streams.get(request_id)
            if stream is None:
                continue  # its consumer has gone, and the abort is on its way
            try:
                stream.put(output, place)
            except (LookupError, TypeError, ValueError) as error:  # it must not end the others' answers
                stream.fail(EngineError(f"what SGLang said of the request was not understood: {error!r}"))

    def _dropped(self, message: Any) -> None:
        """Tell the end of a request that was still in the schedulers' queue."""
        if (stream := self._streams.get(message.rid)) is not None:
            text = message.abort_message or "Abort in waiting queue"
            stream.end(message.finished_reason or {"type": "abort", "message": text})
