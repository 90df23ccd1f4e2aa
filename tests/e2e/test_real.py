"""The main job on real input: real SGLang, real model, real Valkey, the official SDK."""

import itertools
import re
import threading
import time

import httpx
import pytest

from tests.e2e.conftest import client_of

pytestmark = [pytest.mark.e2e, pytest.mark.sglang]

MODEL = "smollm2-135m-instruct"
QUESTIONS = (
    "What is the capital of France? Answer in one sentence.",
    "Name one famous building there.",
    "How tall is it? One sentence.",
)


def collect(stream) -> tuple[str, object]:
    """Return the text of a Responses stream and its last event."""
    text, last = "", None
    for event in stream:
        if event.type == "response.output_text.delta":
            text += event.delta
        last = event
    return text, last


def check_turns(usages) -> None:
    """Each turn must find the whole of the turn before in the cache, but for the last token."""
    for before, after in itertools.pairwise(usages):
        assert after.input_tokens_details.cached_tokens >= before.input_tokens + before.output_tokens - 1


def test_three_turns_over_http_reuse_the_cache(real):
    """A conversation over SSE: streams, answers sensibly, and turn N+1 is served from the KV cache."""
    client = client_of(real)
    conversation = client.conversations.create()
    usages, texts = [], []
    for question in QUESTIONS:
        text, last = collect(
            client.responses.create(
                model=MODEL,
                conversation=conversation.id,
                input=question,
                stream=True,
                temperature=0,
                max_output_tokens=60,
            )
        )
        assert last.type in ("response.completed", "response.incomplete"), last
        assert last.response.output_text == text != ""
        usages.append(last.response.usage)
        texts.append(text)
    assert "Paris" in texts[0]
    check_turns(usages)
    items = client.conversations.items.list(conversation.id, order="asc").data
    assert [item.role for item in items] == ["user", "assistant"] * 3


def test_three_turns_over_websocket_reuse_the_cache(real):
    """The same over `client.responses.connect()`."""
    client = client_of(real)
    conversation = client.conversations.create()
    usages = []
    with client.responses.connect() as connection:
        for question in QUESTIONS:
            connection.response.create(
                model=MODEL, conversation=conversation.id, input=question, temperature=0, max_output_tokens=40
            )
            text = ""
            for event in connection:
                if event.type == "response.output_text.delta":
                    text += event.delta
                if event.type in ("response.completed", "response.incomplete", "response.failed"):
                    break
            assert event.type != "response.failed", event
            assert event.response.output_text == text != ""
            usages.append(event.response.usage)
    check_turns(usages)


def test_previous_response_id_continues_and_branches(real):
    """`previous_response_id` continues an answer; using one twice makes two branches with one cached prefix."""
    client = client_of(real)
    first = client.responses.create(
        model=MODEL, input="My name is Ada. Say hello.", temperature=0, max_output_tokens=30
    )
    branches = [
        client.responses.create(
            model=MODEL,
            previous_response_id=first.id,
            input="What is my name?",
            temperature=0,
            max_output_tokens=30,
        )
        for _ in range(2)
    ]
    assert branches[0].output_text == branches[1].output_text
    for branch in branches:
        assert branch.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 1


def test_chat_completions_stream_and_not_agree(real):
    """The stateless door: streamed and whole answers are the same, usage counts hit and miss."""
    client = client_of(real)
    ask = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say one word."}],
        "temperature": 0,
        "max_tokens": 20,
    }
    whole = client.chat.completions.create(**ask)
    text, usage = "", None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens
    assert usage.prompt_tokens_details.cached_tokens >= whole.usage.prompt_tokens - 1


def test_a_prompt_over_the_window_is_a_400_that_gives_the_counts(real):
    """A 9,000-token input on an 8,192 window is refused in words, and the conversation stays usable."""
    client = client_of(real)
    conversation = client.conversations.create()
    response = httpx.post(
        f"{real.url}/v1/responses",
        json={"model": MODEL, "conversation": conversation.id, "input": "word " * 9000},
        timeout=60,
    )
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert "8192" in error["message"] and int(re.search(r"has (\d+) tokens", error["message"])[1]) >= 9000
    after = client.responses.create(
        model=MODEL, conversation=conversation.id, input="Hi", temperature=0, max_output_tokens=5
    )
    assert after.output_text
    assert len(client.conversations.items.list(conversation.id).data) == 2


def test_stop_keeps_the_part_and_the_next_turn_hits_it(real):
    """A stop ends the answer, keeps what was written with exact usage, and the next turn finds it cached."""
    client = client_of(real)
    conversation = client.conversations.create()
    stream = client.responses.create(
        model=MODEL,
        conversation=conversation.id,
        input="Tell me a long story about the sea.",
        stream=True,
        temperature=0,
        max_output_tokens=4000,
        extra_body={"ignore_eos": True},
    )
    text, asked = "", False
    for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.output_text.delta":
            text += event.delta
            if event.sequence_number > 12 and not asked:
                asked = bool(client.responses.cancel(response_id))
    assert event.response.status == "cancelled"
    assert event.response.output_text == text
    assert 8 <= event.response.usage.output_tokens < 4000
    after = client.responses.create(
        model=MODEL, conversation=conversation.id, input="Go on.", temperature=0, max_output_tokens=5
    )
    stopped = event.response.usage
    assert after.usage.input_tokens_details.cached_tokens >= stopped.input_tokens + stopped.output_tokens - 1


STORY = {
    "model": MODEL,
    "input": "Tell me a story about a lighthouse keeper.",
    "temperature": 0,
    "max_output_tokens": 300,
    "extra_body": {"ignore_eos": True},
}
"""Takes seconds, so that a reader that is late on a busy machine still finds it in its middle."""


@pytest.fixture(scope="module")
def expected(real) -> str:
    """The story that nothing disturbs."""
    return client_of(real).responses.create(**STORY).output_text


def test_a_killed_engine_finishes_the_same_answer(real, expected):
    """kill -9 of the engine in mid-answer: the open stream pauses and then brings the rest of the same answer."""
    client = client_of(real)
    text, positions, killed = "", [], None
    for event in client.responses.create(**STORY, stream=True):
        positions.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            text += event.delta
            if event.sequence_number > 20 and killed is None:
                killed = real.kill("engine")
    assert killed is not None
    assert event.type in ("response.completed", "response.incomplete"), event
    assert text == expected == event.response.output_text
    assert positions == sorted(set(positions))
    assert real.pid("engine") != killed


def test_a_restarted_web_process_resumes_in_mid_answer(real, expected):
    """kill -9 of web in mid-answer: the client reconnects with its position and misses or repeats nothing."""
    client = client_of(real)
    text, position, response_id, killed = "", -1, "", 0
    with pytest.raises(Exception):  # noqa: B017 - whatever the SDK makes of a cut connection
        for event in client.responses.create(**STORY, stream=True):
            position = event.sequence_number
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                text += event.delta
                if position > 15 and not killed:
                    killed = real.kill("web")
    real.wait_replaced("web", killed)
    rest, last = collect(client.responses.retrieve(response_id, stream=True, starting_after=position))
    assert text + rest == expected
    assert last.response.output_text == expected


def test_sixteen_readers_of_one_answer_get_the_same(real, expected):
    """Readers that attach at different times to one answer all get every token once."""
    client = client_of(real)
    created = client.responses.create(**STORY, background=True)
    texts: dict[int, str] = {}

    def read(number: int) -> None:
        texts[number] = collect(client.responses.retrieve(created.id, stream=True))[0]

    readers = [threading.Thread(target=read, args=(number,)) for number in range(16)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(120)
    assert len(texts) == 16
    assert set(texts.values()) == {expected}


def everything(sdk, conversation: str) -> list:
    """All items of all branches."""
    query = {"branches": "all", "order": "asc"}
    return sdk.conversations.items.list(conversation, limit=100, extra_query=query).data


def cold(sdk, conversation: str) -> bool:
    """Whether idle work has more to make than what every turn computes."""
    told = sdk.get(f"/conversations/{conversation}/cache", cast_to=object)
    return told["state"] != "known" or told["prefill_tokens"] > 8


def test_compaction_and_going_on_with_the_real_model(real):
    """SmolLM2 summarises what a cut drops, while nobody waits; a cut off answer goes on as if it had not been cut."""
    sdk = client_of(real)
    ask = {"model": MODEL, "temperature": 0, "extra_body": {"ignore_eos": True}}
    whole = sdk.responses.create(input="Tell me about the sea.", max_output_tokens=48, **ask)
    part = sdk.responses.create(input="Tell me about the sea.", max_output_tokens=20, **ask)
    more = sdk.responses.create(extra_body={"continue": part.id, "max_output_tokens": 28})
    assert more.output_text == whole.output_text
    assert more.usage.input_tokens - more.usage.input_tokens_details.cached_tokens <= 1

    policy = {"type": "auto", "token_limits": {"post_instructions": 350}, "compaction": True}
    conversation = sdk.conversations.create().id
    answer = None
    for number in range(20):
        answer = sdk.responses.create(
            input=f"My {number}th wish is a boat with {number} sails. Say why that is a good wish.",
            conversation=conversation,
            truncation=policy,
            max_output_tokens=40,
            **ask,
        )
        if answer.context["summary"]:
            break
        until = time.monotonic() + 60
        while answer.context["next_cut"] and not [
            i for i in everything(sdk, conversation) if i.type == "compaction"
        ]:
            assert time.monotonic() < until, "no summary was written"
            time.sleep(0.2)
        while cold(sdk, conversation) and time.monotonic() < until:
            time.sleep(0.1)
    (summary, *_) = [i for i in everything(sdk, conversation) if i.type == "compaction"]
    assert answer.context["summary"]["item"] == summary.id and summary.summary[0]["text"]
    assert summary.usage["output_tokens"] > 0
    asked = summary.usage["input_tokens"] - summary.usage["input_tokens_details"]["cached_tokens"]
    missed = answer.usage.input_tokens - answer.usage.input_tokens_details.cached_tokens
    print(f"summary: {summary.usage}, {summary.summary[0]['text'][:200]!r}; next turn computed {missed}")
    assert asked < summary.usage["input_tokens"] / 2
    assert missed < 60
