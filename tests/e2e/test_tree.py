"""Every change to a conversation's tree, through the official SDK on the whole program, over HTTP and on the socket."""

import time

import pytest

from tests.e2e.conftest import client_of

pytestmark = pytest.mark.e2e
ASK = {"model": "scripted", "temperature": 0, "max_output_tokens": 8, "extra_body": {"ignore_eos": True}}


def tree(sdk, conversation: str) -> dict[str, dict]:
    """All items of all branches."""
    page = sdk.conversations.items.list(
        conversation, limit=100, extra_query={"branches": "all", "order": "asc"}
    )
    return {item.id: item for item in page.data}


def text_of(item) -> str:
    return item.content[0].text


def test_the_tree_by_sdk(scripted):
    """Append, stale append, regenerate, edit, several answers, go on, fork, delete: nothing is overwritten."""
    sdk = client_of(scripted)
    first = sdk.responses.create(input="One", **ASK)
    conversation, question = first.conversation.id, None
    seen = tree(sdk, conversation)
    question = seen[first.output[0].id].parent
    second = sdk.responses.create(input="Two", conversation=conversation, **ASK)
    stale = sdk.responses.create(input="Two, from a tab that slept", previous_response_id=first.id, **ASK)
    again = sdk.responses.create(input=[], conversation={"id": conversation, "parent": question}, **ASK)
    edited = sdk.responses.create(
        input="One, edited", conversation={"id": conversation, "parent": None}, **ASK
    )
    body = {**ASK["extra_body"], "n": 3, "seed": 5}
    several = sdk.responses.create(
        input="Three", conversation=conversation, **{**ASK, "temperature": 1, "extra_body": body}
    )
    whole = sdk.responses.create(extra_body={"continue": second.id})
    for sibling in several.siblings:
        while sdk.responses.retrieve(sibling).status in ("queued", "in_progress"):
            time.sleep(0.02)
    now = tree(sdk, conversation)
    for item_id, item in seen.items():
        assert (now[item_id].parent, text_of(now[item_id])) == (item.parent, text_of(item))
    parents = {
        name: now[r.output[0].id].parent
        for name, r in {"first": first, "again": again, "whole": whole}.items()
    }
    assert parents["first"] == parents["again"] == question
    assert now[whole.output[0].id].parent == now[second.output[0].id].parent
    assert whole.output_text.startswith(second.output_text) and len(whole.output_text) > len(
        second.output_text
    )
    assert whole.usage.output_tokens == 8 and whole.usage.input_tokens == second.usage.input_tokens + 8
    assert now[now[stale.output[0].id].parent].parent == first.output[0].id
    assert now[now[edited.output[0].id].parent].parent is None
    beside = [i for i in now.values() if i.parent == now[several.output[0].id].parent]
    assert len(beside) == 3 and len({text_of(i) for i in beside}) == 3

    fork = sdk.post(f"/conversations/{conversation}/fork", cast_to=object, body={"leaf": stale.output[0].id})
    sdk.responses.create(input="In the fork", conversation=fork["id"], **ASK)
    assert len(tree(sdk, conversation)) == len(now)
    sdk.conversations.items.delete(question, conversation_id=conversation)
    left = tree(sdk, conversation)
    assert set(left) == {i for i in now if i in left} and first.output[0].id not in left
    assert edited.output[0].id in left and len(tree(sdk, fork["id"])) == 6


def test_stop_and_go_on_on_the_socket(scripted):
    """Stopped and gone on with on one WebSocket of the SDK."""
    sdk = client_of(scripted)
    with sdk.responses.connect() as connection:
        connection.send(
            {"type": "response.create", "input": "Hi", "max_output_tokens": 7000, "ignore_eos": True}
        )
        response_id, kept = "", ""
        for event in connection:
            response_id = event.response.id if event.type == "response.created" else response_id
            if event.type == "response.output_text.delta" and not kept:
                kept = event.delta
                sdk.responses.cancel(response_id)
            if event.type == "response.incomplete":
                kept = event.response.output_text
                break
        connection.send({"type": "response.create", "continue": response_id, "max_output_tokens": 5})
        text = ""
        for event in connection:
            text += event.delta if event.type == "response.output_text.delta" else ""
            if event.type in ("response.completed", "response.incomplete"):
                break
        assert text.startswith(kept) and len(text) > len(kept)
        assert event.response.continues


def on_socket(connection, **body):
    """Ask on the SDK's socket; return the response as it ended, and the text of its deltas."""
    connection.send({"type": "response.create", **body})
    text = ""
    for event in connection:
        text += event.delta if event.type == "response.output_text.delta" else ""
        if event.type in ("response.completed", "response.incomplete"):
            return event.response, text
    raise AssertionError("the socket closed before the end")


def test_the_tree_on_the_socket(scripted):
    """Regenerate, edit, several answers, go on and a stale append by `responses.connect()`: only branches."""
    sdk = client_of(scripted)
    ask = {"model": "scripted", "temperature": 1, "max_output_tokens": 8, "ignore_eos": True}
    with sdk.responses.connect() as connection:
        first, _ = on_socket(connection, input="One", **ask)
        conversation, answer = first.conversation.id, first.output[0].id
        before = tree(sdk, conversation)
        question = before[answer].parent
        again, _ = on_socket(
            connection, input=[], conversation={"id": conversation, "parent": question}, **{**ask, "seed": 7}
        )
        edited, _ = on_socket(
            connection, input="One, edited", conversation={"id": conversation, "parent": None}, **ask
        )
        several, _ = on_socket(connection, input="Two", conversation=conversation, n=3, seed=5, **ask)
        more, text = on_socket(connection, **{"continue": again.id, "max_output_tokens": 20})
        stale, _ = on_socket(
            connection,
            input="From a tab that slept",
            conversation={"id": conversation, "parent": answer},
            **ask,
        )
        connection.send({"type": "response.create", "continue": first.conversation.id})
        refused = next(event for event in connection if event.type == "error")
    for sibling in several.siblings:
        while sdk.responses.retrieve(sibling).status in ("queued", "in_progress"):
            time.sleep(0.02)
    now = tree(sdk, conversation)
    assert {i: (now[i].parent, text_of(now[i])) for i in before} == {
        i: (before[i].parent, text_of(before[i])) for i in before
    }
    regenerated, other, one_of_three, whole, late = (
        now[response.output[0].id] for response in (again, edited, several, more, stale)
    )
    assert regenerated.parent == whole.parent == question
    assert text == text_of(whole) and text.startswith(text_of(regenerated)) and more.continues
    assert now[other.parent].parent is None and other.parent != question
    assert len({text_of(item) for item in now.values() if item.parent == one_of_three.parent}) == 3
    assert now[late.parent].parent == answer
    assert (refused.status, refused.error.param) == (404, "continue")


def test_chat_completions_choices(scripted):
    """`n`, whole and streamed."""
    sdk = client_of(scripted)
    ask = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": 3,
        "seed": 1,
        "max_tokens": 9,
    }
    whole = sdk.chat.completions.create(**ask)
    texts = ["", "", ""]
    for chunk in sdk.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices] and len(set(texts)) == 3
