"""Requests go out in SGLang's own messages, and what comes back goes to whom it belongs; over a real ZeroMQ socket."""

import asyncio
from types import SimpleNamespace

import pytest

from engine.contract import Chunk, EngineError, EngineLost, FinishReason, RequestRefused, Sampling
from engine.requests import sampling_arguments
from engine.watchdog import Wait

pytestmark = pytest.mark.sglang

ONE, OTHER = "1" * 32, "2" * 32


class Schedulers:
    """The other end: what was sent, and a socket to answer on."""

    def __init__(self, folder) -> None:
        import zmq
        import zmq.asyncio
        from sglang.srt.managers.io_struct import BatchTokenizedGenerateReqInput, TokenizedGenerateReqInput
        from sglang.srt.sampling.sampling_params import SamplingParams
        from sglang.srt.utils.watchdog import Watchdog

        self.sent: list = []
        self.else_: list = []
        self._context = zmq.asyncio.Context()
        receiving = self._context.socket(zmq.PULL)
        receiving.bind(f"ipc://{folder}/tokens")
        self._answering = zmq.Context()
        self._answers = self._answering.socket(zmq.PUSH)
        self._answers.connect(f"ipc://{folder}/tokens")
        self.manager = SimpleNamespace(
            recv_from_detokenizer=receiving,
            soft_watchdog=Watchdog.create(None, watchdog_timeout=None, soft=True),
            enable_priority_scheduling=False,
            default_priority_value=None,
            preferred_sampling_params=None,
            sampling_params_class=SamplingParams,
            tokenized_generate_req_type=TokenizedGenerateReqInput,
            batch_tokenized_generate_req_type=BatchTokenizedGenerateReqInput,
            tokenizer=None,
            model_config=SimpleNamespace(vocab_size=100),
            _dispatch_to_scheduler=self.sent.append,
            _result_dispatcher=self.else_.append,
        )

    def answer(self, message) -> None:
        from sglang.srt.managers.io_struct import sock_send

        sock_send(self._answers, message)

    def close(self) -> None:
        self._answering.destroy(linger=0)
        self._context.destroy(linger=0)


@pytest.fixture
async def both(tmp_path):
    """Yield (exchange, schedulers), the exchange receiving."""
    import engine.runtime  # noqa: F401 — SGLang behind its shim
    from engine.exchange import Exchange

    schedulers = Schedulers(tmp_path)
    exchange = Exchange(schedulers.manager)
    receiving = asyncio.create_task(exchange.receive())
    yield exchange, schedulers
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    schedulers.close()


def begin(exchange, request_id, **more):
    sampling = sampling_arguments(Sampling(max_tokens=4, seed=3), frozenset({2}))
    options = {"salt": "", "logprobs": None, "thinks": False} | more
    return exchange.open(request_id, (5, 6), sampling, Wait(patience=5), **options)


def step(*of):
    """Return an output: (request, ids so far, new ids, end) each."""
    from tests.bench.relay.stub import Request, output

    pairs = []
    for request_id, total, new, ends in of:
        request = Request(request_id, prompt=2, tokens=total if ends else total + 1)
        request.sent = total
        pairs.append((request, new))
    return output(pairs)


async def soon(stream) -> Chunk:
    return await asyncio.wait_for(stream.take(), 20)


async def test_each_gets_its_own(both):
    """Two requests in one step; a third, whose consumer has gone, is nobody's."""
    exchange, schedulers = both
    one, other = begin(exchange, ONE, salt="s"), begin(exchange, OTHER, logprobs=None, thinks=True)
    await asyncio.sleep(0)
    (together,) = schedulers.sent
    first, second = together
    assert (first.rid, list(first.input_ids), first.cache_salt, first.stream) == (ONE, [5, 6], "s", True)
    assert (second.cache_salt, second.require_reasoning) == (None, True)
    assert (first.sampling_params.max_new_tokens, first.sampling_params.sampling_seed) == (4, 3)
    schedulers.answer(step((ONE, 1, [7], False), ("3" * 32, 1, [9], False), (OTHER, 2, [8, 8], True)))
    assert await soon(one) == Chunk((7,), 0)
    assert await soon(other) == Chunk((8, 8), 0, FinishReason.LENGTH)
    assert (one.over, other.over, exchange.received) == (False, True, 1)


async def test_an_output_that_cannot_be_read_ends_its_own_request(both):
    """A kind of end that nobody knows: the other request of the step, and the steps behind it, come as ever."""
    from sglang.srt.managers.io_struct import AbortReq

    exchange, schedulers = both
    one, other = begin(exchange, ONE), begin(exchange, OTHER)
    strange = step((ONE, 1, [7], True), (OTHER, 1, [8], False))
    strange.finished_reasons[0] = {"type": "strange"}
    schedulers.answer(strange)
    assert await soon(other) == Chunk((8,), 0)
    with pytest.raises(EngineError, match=r"not understood.*strange"):
        await soon(one)
    exchange.close(ONE, abort=True)
    assert isinstance(schedulers.sent[-1], AbortReq) and schedulers.sent[-1].rid == ONE
    schedulers.answer(step((OTHER, 2, [9], True)))
    assert await soon(other) == Chunk((9,), 0, FinishReason.LENGTH)


async def test_an_abort_is_sent_once(both):
    """By hand or because its consumer went; not for a request that is over, nor for one that nobody knows."""
    from sglang.srt.managers.io_struct import AbortReq

    exchange, schedulers = both
    one, other = begin(exchange, ONE), begin(exchange, OTHER)
    exchange.abort("3" * 32)
    assert not schedulers.sent
    exchange.abort(ONE)
    exchange.abort(ONE)
    assert [type(message).__name__ for message in schedulers.sent] == [
        "BatchTokenizedGenerateReqInput",
        "AbortReq",
    ]
    schedulers.answer(AbortReq(rid=ONE))  # it was still in the queue
    assert await soon(one) == Chunk((), 0, FinishReason.ABORT)
    schedulers.answer(step((OTHER, 1, [8], True)))
    assert (await soon(other)).finish is FinishReason.LENGTH
    exchange.close(ONE, abort=True)
    exchange.close(OTHER, abort=True)
    assert [message.rid for message in schedulers.sent if isinstance(message, AbortReq)] == [ONE]
    begin(exchange, ONE)
    exchange.close(ONE, abort=True)
    assert isinstance(schedulers.sent[-1], AbortReq) and schedulers.sent[-1].rid == ONE


async def test_what_is_refused_is_not_sent(both):
    """An id that is under way, and what SGLang's sampling does not take."""
    exchange, schedulers = both
    begin(exchange, ONE)
    with pytest.raises(RequestRefused, match="running already"):
        begin(exchange, ONE)
    with pytest.raises(RequestRefused, match="top_p"):
        exchange.open(OTHER, (5,), {"top_p": 3.0}, Wait(5), salt="", logprobs=None, thinks=False)
    await asyncio.sleep(0)
    (alone,) = schedulers.sent
    assert (alone.rid, list(alone.input_ids)) == (ONE, [5, 6])
    begin(exchange, OTHER)


async def test_other_messages_go_to_the_manager(both):
    """Answers to questions, for example."""
    from engine.scheduler_messages import ReleaseReqOutput

    exchange, schedulers = both
    schedulers.answer(ReleaseReqOutput(rid="q", tokens=3))
    async with asyncio.timeout(20):
        while not schedulers.else_:
            await asyncio.sleep(0.01)
    assert schedulers.else_[0].tokens == 3 and exchange.received == 1


async def test_all_fail_together_or_one_alone(both):
    """The engine was lost, or one request was forgotten."""
    exchange, schedulers = both
    one, other = begin(exchange, ONE), begin(exchange, OTHER)
    exchange.fail_one(ONE, EngineLost("one"))
    exchange.fail_one("3" * 32, EngineLost("nobody"))
    exchange.fail(EngineLost("all"))
    for stream, text in ((one, "one"), (other, "all")):
        with pytest.raises(EngineLost, match=text):
            await soon(stream)
    assert not schedulers.sent
