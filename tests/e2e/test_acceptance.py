"""Others' bugs, as acceptance tests: each has its number, here or where it is tested already.

1   refresh during prefill                          test_01_…
2   refresh in mid-answer                           test_02_…
3   stop from anywhere, at any time                 test_03_…, tests/e2e/test_real.py::test_stop_keeps_the_part_and_the_next_turn_hits_it
4   a late stop                                     test_04_…
5   usage is what was sent                          test_05_…
6   a stale tab                                     test_06_…
7   one idempotency key                             test_07_…, tests/chatserver/transports/test_fleeting.py::test_the_same_key_twice_is_one_generation
8   a socket that never reads                       tests/chatserver/transports/test_websocket.py::test_a_reader_that_never_reads_is_sent_away_and_harms_nobody
9   kill -9 of the engine, of web, of the store     tests/e2e/test_faults.py::test_engine_killed_in_mid_answer
                                                    tests/e2e/test_faults.py::test_web_killed_in_mid_answer
                                                    tests/e2e/test_faults.py::test_store_killed_in_mid_answer
                                                    tests/e2e/test_matrix.py::test_fault
10  40 turns past the window                        test_10_…
11  two tenants, one prompt                         test_11_…
12  ids, keys again, expired keys                   test_12_…, tests/chatserver/transports/test_key_ends.py::test_an_open_stream_ends_with_its_key
                                                    tests/chatserver/transports/test_websocket.py::test_each_attach_asks_again_who_may_read
13  a reasoning model, three turns                  tests/chatserver/service/engine/test_earlier_reasoning.py::test_reasoning_goes_and_the_next_turn_is_warm
14  10,000 stored responses                         tests/bench/stored (minutes long, so not among the tests)
"""  # noqa: E501 - a table

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chatserver.service.engine_role import at_rest
from tests.chatserver.transports.conftest import running_web
from tests.chatserver.transports.engine_beside import web_and_engine
from tests.chatserver.transports.keyed import DEED, bearer, key_id_of, new_key
from tests.chatserver.transports.reading import parse_sse
from tests.e2e.conftest import client_of

ASK = {"model": "scripted", "temperature": 0, "max_output_tokens": 60, "ignore_eos": True}
PACED = {"tokens_per_second": 150.0, "ttft_ms": 20.0}


class _NoEngine:
    """For a web process beside one that has an engine."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


@asynccontextmanager
async def two_webs(engine_options: dict, **role):
    """Two web processes on one store, with one engine."""
    async with (
        web_and_engine(engine_options, role=role) as first,
        running_web(first.store, engine=_NoEngine()) as second,
    ):
        yield first, second


async def ended(http, name: str) -> dict:
    """The response once it has ended."""
    async with asyncio.timeout(60):
        while (found := (await http.get(f"/v1/responses/{name}")).json())["status"] in (
            "queued",
            "in_progress",
        ):
            await asyncio.sleep(0.01)
    return found


def text_of(response: dict) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


def deltas(events: list[dict]) -> str:
    return "".join(
        json.loads(e["data"]).get("delta", "") for e in events if e["event"].endswith("text.delta")
    )


async def begun(http, **more) -> dict:
    """A response that goes on without readers."""
    return (await http.post("/v1/responses", json=ASK | {"input": "Hello", "background": True} | more)).json()


async def words_of(http, name: str) -> None:
    """Wait for some of its words."""
    async with http.stream("GET", f"/v1/responses/{name}?stream=true") as stream:
        seen = 0
        async for line in stream.aiter_lines():
            seen += line.startswith("event: response.output_text.delta")
            if seen == 3:
                return


async def test_01_refresh_during_prefill_attaches_and_completes():
    """The page is gone before the first token; the next one gets every event, from the first on."""
    async with web_and_engine({"ttft_ms": 400.0}) as web:
        http = web.http()
        async with http.stream(
            "POST", "/v1/responses", json=ASK | {"input": "Hello", "stream": True}
        ) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    name = json.loads(line[5:])["response"]["id"]
                    break
        events = parse_sse((await http.get(f"/v1/responses/{name}?stream=true")).text)
        assert events[0]["event"] == "response.created" and events[-1]["event"] == "response.incomplete"
        assert deltas(events) == text_of(await ended(http, name)) != ""


async def test_02_refresh_in_mid_answer_repeats_nothing_and_keeps_settings():
    """All text is there once, whatever was read before; the settings are those of the first request."""
    async with web_and_engine(PACED) as web:
        http, settings = (
            web.http(),
            {"instructions": "Be brief.", "temperature": 0.3, "seed": 7, "metadata": {"tab": "1"}},
        )
        seen: list[dict] = []
        async with http.stream(
            "POST", "/v1/responses", json=ASK | settings | {"input": "Hi", "stream": True}
        ) as stream:
            block: list[str] = []
            async for line in stream.aiter_lines():
                block.append(line)
                if line == "" and len(seen) < 15:
                    seen += parse_sse("\n".join(block))
                    block = []
                if len(seen) == 15:
                    break
        name = json.loads(seen[0]["data"])["response"]["id"]
        rest = parse_sse(
            (await http.get(f"/v1/responses/{name}?stream=true&starting_after={seen[-1]['id']}")).text
        )
        last = json.loads(rest[-1]["data"])["response"]
        assert deltas(seen) + deltas(rest) == text_of(last)
        numbers = [int(event["id"]) for event in seen + rest]
        assert numbers == sorted(set(numbers))
        for told in (last, await ended(http, name)):
            assert {key: told[key] for key in ("instructions", "temperature", "metadata")} == {
                key: settings[key] for key in ("instructions", "temperature", "metadata")
            }


@pytest.mark.parametrize("when", ["queued", "prefill", "other tab", "other process", "resumed stream"])
async def test_03_stop_from_anywhere(when):
    """The scheduler drops it long before its end, the part is kept, the next turn finds all of it in the cache."""
    slow = PACED | ({"ttft_ms": 300_000.0} if when == "prefill" else {})
    endless = {"max_output_tokens": 7000}  # takes most of a minute
    async with two_webs(slow, max_running=1 if when == "queued" else 8) as (web, other):
        http = web.http()
        before = await begun(http, **endless) if when == "queued" else None
        answer = await begun(http, **endless)
        name, stopper = answer["id"], other.http() if when == "other process" else web.http()
        if when == "prefill":
            await asyncio.sleep(0.3)
        elif when != "queued":
            await words_of(http, name)
        if when == "resumed stream":
            async with http.stream("GET", f"/v1/responses/{name}?stream=true&starting_after=6") as resumed:
                await anext(resumed.aiter_lines())
                stopped = await http.post(f"/v1/responses/{name}/cancel")
        else:
            stopped = await stopper.post(f"/v1/responses/{name}/cancel")
        assert stopped.status_code == 200
        told = await ended(http, name)
        assert told["status"] == "cancelled"
        again = (await stopper.post(f"/v1/responses/{name}/cancel")).json()
        assert (again["status"], again["usage"]) == ("cancelled", told["usage"])
        if before is not None:
            assert (await http.get(f"/v1/responses/{before['id']}")).json()["status"] == "in_progress"
            await http.post(f"/v1/responses/{before['id']}/cancel")
            await ended(http, before["id"])
        assert (await web.scripted.health()).running == 0
        if when in ("queued", "prefill"):
            assert told["usage"]["output_tokens"] == 0
            return
        assert text_of(told) and 0 < told["usage"]["output_tokens"] < endless["max_output_tokens"]
        body = ASK | {"input": "And?", "previous_response_id": name}
        following = (await http.post("/v1/responses", json=body)).json()
        spent = told["usage"]["input_tokens"] + told["usage"]["output_tokens"]
        assert following["usage"]["input_tokens_details"]["cached_tokens"] >= spent - 1


async def test_04_a_late_stop_does_not_end_the_next_answer():
    async with web_and_engine(PACED) as web:
        http = web.http()
        first = (
            await http.post("/v1/responses", json=ASK | {"input": "Hello", "max_output_tokens": 5})
        ).json()
        second = await begun(http, previous_response_id=first["id"])
        await words_of(http, second["id"])
        late = (await http.post(f"/v1/responses/{first['id']}/cancel")).json()
        assert late["status"] == first["status"] == "incomplete"
        told = await ended(http, second["id"])
        assert told["status"] == "incomplete" and told["usage"]["output_tokens"] == ASK["max_output_tokens"]


async def test_05_usage_is_what_was_sent():
    """After a stop and after a disconnect: the tokens on the tape, one by one."""
    async with web_and_engine(PACED) as web:
        http = web.http()
        for stop in (True, False):
            most = 7000 if stop else 100
            answer = await begun(http, max_output_tokens=most)
            await words_of(http, answer["id"])  # and then its reader is gone
            if stop:
                await http.post(f"/v1/responses/{answer['id']}/cancel")
            told = await ended(http, answer["id"])
            assert told["usage"]["output_tokens"] == await tokens_of(http, answer["id"])
            assert (told["usage"]["output_tokens"] < most) == stop


async def tokens_of(http, name: str) -> int:
    """How many tokens an answer's tape holds: its numbers count them."""
    events = parse_sse((await http.get(f"/v1/responses/{name}?stream=true")).text)
    return _tokens([json.loads(event["data"]) for event in events])


def _tokens(events: list[dict]) -> int:
    numbers = {event["type"]: event["sequence_number"] for event in events}
    recoveries = sum("recovery" in event for event in events)
    return numbers["response.output_text.done"] - numbers["response.content_part.added"] - 1 - recoveries


def test_05_usage_is_what_was_sent_after_kill_9(scripted):
    """The engine is killed in mid-answer: nothing is counted twice, nothing is forgotten."""
    client, old, events = client_of(scripted), None, []
    stream = client.responses.create(
        model="scripted",
        input="Hello there",
        stream=True,
        max_output_tokens=150,
        extra_body={"ignore_eos": True},
    )
    for event in stream:
        events.append(event.to_dict())
        if event.type == "response.output_text.delta" and event.sequence_number > 12 and old is None:
            old = scripted.kill("engine")
    scripted.wait_replaced("engine", old)
    assert any("recovery" in event for event in events)
    usage = events[-1]["response"]["usage"]
    assert usage["output_tokens"] == 150 == _tokens(events)
    assert usage["total_tokens"] == usage["input_tokens"] + 150


async def test_06_a_stale_tab_makes_a_branch():
    """Two tabs saw the same end; both send: both branches exist, with both answers, and nothing is overwritten."""
    async with web_and_engine() as web:
        http = web.http()
        first = (await http.post("/v1/responses", json=ASK | {"input": "Hello"})).json()
        conversation, end = first["conversation"]["id"], first["output"][0]["id"]
        ahead = {"input": "From the first tab", "conversation": conversation}
        stale = {"input": "From the stale tab", "conversation": {"id": conversation, "parent": end}}
        answers = [(await http.post("/v1/responses", json=ASK | body)).json() for body in (ahead, stale)]
        listed = await http.get(f"/v1/conversations/{conversation}/items?branches=all&order=asc&limit=100")
        items = {item["id"]: item for item in listed.json()["data"]}
        assert len(items) == 6 and len([item for item in items.values() if item["parent"] == end]) == 2
        for answer in answers:
            kept = items[answer["output"][0]["id"]]
            assert kept["content"][0]["text"] == text_of(answer) and items[kept["parent"]]["parent"] == end


async def test_07_one_key_at_two_processes_is_one_generation():
    async with two_webs(PACED) as webs:
        headers = {"Idempotency-Key": "the same"}
        posts = [
            web.http().post("/v1/responses", json=ASK | {"input": "Hi"}, headers=headers)
            for web in (*webs, *webs)
        ]
        answers = [answer.json() for answer in await asyncio.gather(*posts)]
        assert (
            len({answer["id"] for answer in answers}) == 1
            and len({text_of(answer) for answer in answers}) == 1
        )
        assert len((await webs[0].http().get("/v1/conversations")).json()["data"]) == 1


async def test_10_forty_turns_past_the_window():
    """Hits stay high, every cut is told, the instructions are always there."""
    async with web_and_engine({"context": 1024}) as web:
        http, sent, cached, cuts, body = web.http(), 0, 0, set(), {}
        for turn in range(40):
            ask = {
                "input": f"{turn} " + "word " * 20,
                "instructions": "Be brief.",
                "truncation": "auto",
                **body,
            }
            answer = (await http.post("/v1/responses", json=ASK | ask)).json()
            context = answer["context"]
            assert context["instructions"] > 0 and context["sent"] <= 1024
            assert bool(context["dropped"]) == (context["cut"] is not None)
            sent, cached = sent + context["sent"], cached + context["cached"]
            cuts |= {context["cut"]} - {None}
            body = {"previous_response_id": answer["id"]}
            await at_rest(web.worker)
        assert 2 <= len(cuts) <= 12, cuts
        assert cached / sent > 0.8, (cached, sent)


async def test_11_two_tenants_share_no_token():
    async with web_and_engine(api_keys=(("acme", "acme-secret"), ("other", "other-secret"))) as web:
        hits = []
        for key in ("acme-secret", "acme-secret", "other-secret"):
            answer = await web.http(headers=bearer(key)).post(
                "/v1/responses", json=ASK | {"input": "The same " * 50}
            )
            hits.append(answer.json()["usage"]["input_tokens_details"]["cached_tokens"])
        assert hits[0] == 0 and hits[1] > 50 and hits[2] == 0


async def test_12_ids_keys_and_expiry():
    """An id has 120 bits of chance; another tenant's looks like none; who resumes is asked again for a living key."""
    async with web_and_engine(PACED) as web:
        mine, theirs = await new_key(web.store), await new_key(web.store, tenant="other")
        http = web.http(headers=bearer(mine))
        answer = await begun(http)
        assert re.fullmatch(r"resp_[0-9a-f]{32}", answer["id"])
        url = f"/v1/responses/{answer['id']}?stream=true"
        foreign = await web.http(headers=bearer(theirs)).get(url)
        missing = await web.http(headers=bearer(theirs)).get(url.replace(answer["id"][-4:], "0000"))
        assert foreign.status_code == missing.status_code == 404
        assert foreign.json()["error"]["code"] == missing.json()["error"]["code"]
        assert (await http.get(url)).status_code == 200
        await web.store.access.revoke(key_id_of(mine), replace(DEED, at=time.time(), what="revoke"))
        again = await http.get(url, headers={"Last-Event-ID": "5"})
        assert again.status_code == 401 and again.json()["error"]["code"] == "invalid_api_key"


def test_every_number_is_tested():
    """The table names tests that are there."""
    root, numbers = Path(__file__).resolve().parents[2], set()
    for line in __doc__.splitlines():
        if found := re.match(r"\s*(\d+) ", line):
            numbers.add(int(found[1]))
        for path, name in re.findall(r"(tests/\S+\.py)::(\w+)", line):
            assert re.search(rf"def {name}\(", (root / path).read_text()), line
        for here in re.findall(r"test_\d\d_", line):
            assert any(name.startswith(here) for name in globals()), line
    assert numbers == set(range(1, 15)) and (root / "tests/bench/stored").is_dir()
