"""Lists of conversations and of items: pages, search, and what may be included."""

from __future__ import annotations

import pytest

from chatserver.service.web import listing


async def titled(http, title: str, *texts: str, **metadata: str) -> str:
    """A conversation with these messages of its user."""
    items = [{"role": "user", "content": text} for text in texts]
    made = (await http.post("/v1/conversations", json={"items": items, "metadata": metadata})).json()["id"]
    await http.post(f"/v1/conversations/{made}", json={"title": title})
    return made


async def search(http, words: str, **query) -> list[str]:
    """The ids that a search finds, page by page."""
    found, after = [], None
    while True:
        page = {"q": words, **query} | ({"after": after} if after else {})
        listed = (await http.get("/v1/conversations", params=page)).json()
        found += [conversation["id"] for conversation in listed["data"]]
        if not listed["has_more"]:
            return found
        after = listed["last_id"]


async def test_search_finds_titles_metadata_and_messages(web, monkeypatch):
    """All words, in any case and order; also over pages that are empty because nothing on them matched."""
    http = web.http()
    trip = await titled(http, "Trip to Łódź", "Where to sleep?", "And to EAT pierogi?")
    bill = await titled(http, "Bills", "How much?", project="Łódź trip")
    other = await titled(http, "Gardening", "When do I plant tomatoes?")
    for words, expected in (
        ("łódź", {trip, bill}),
        ("TRIP łódź", {trip, bill}),
        ("pierogi trip", {trip}),
        ("tomatoes pierogi", set()),
        ("", {trip, bill, other}),
        ("%", set()),
    ):
        for query in ({}, {"limit": 1}, {"order": "asc", "limit": 1}):
            assert set(await search(http, words, **query)) == expected, (words, query)
    monkeypatch.setattr(listing, "MOST_SEEN", 1)
    for words, expected in (("tomatoes", {other}), ("łódź", {trip, bill}), ("nothing", set())):
        assert set(await search(http, words)) == expected
    monkeypatch.setattr(listing, "MOST_READ", 0)
    assert set(await search(http, "pierogi")) == {trip}
    too_long = await http.get("/v1/conversations", params={"q": "x" * 201})
    assert too_long.status_code == 400 and too_long.json()["error"]["param"] == "q"


async def test_an_answer_is_found(web):
    http = web.http()
    answer = (await http.post("/v1/responses", json={"model": "tiny", "input": "Hello"})).json()
    assert await search(http, "w19 hello") == [answer["conversation"]["id"]]


@pytest.mark.parametrize("path", ["items", "items/ITEM", "input_items", "responses", "add"])
async def test_include_is_checked_wherever_it_may_stand(web, path):
    """What is known and means nothing here is taken, in both spellings; all else is named."""
    http = web.http()
    answer = (await http.post("/v1/responses", json={"model": "tiny", "input": "Hello"})).json()
    conversation = f"/v1/conversations/{answer['conversation']['id']}"
    method, url = {
        "items": ("GET", f"{conversation}/items"),
        "items/ITEM": ("GET", f"{conversation}/items/{answer['output'][0]['id']}"),
        "input_items": ("GET", f"/v1/responses/{answer['id']}/input_items"),
        "responses": ("GET", f"/v1/responses/{answer['id']}"),
        "add": ("POST", f"{conversation}/items"),
    }[path]
    body = {"items": [{"role": "user", "content": "more"}]} if method == "POST" else None
    for name in ("include", "include[]"):
        known = {name: ["file_search_call.results", "message.input_image.image_url"]}
        assert (await http.request(method, url, params=known, json=body)).status_code == 200
        unknown = await http.request(method, url, params={name: ["nonsense"]}, json=body)
        assert unknown.status_code == 400 and unknown.json()["error"]["param"] == "include[0]"


async def test_items_by_pages_of_the_sdk(web):
    """At most 20 at once; limit, order and after over all of them; one item, and without it."""
    sdk = web.sdk()
    made = await sdk.conversations.create()
    texts = [f"message {number}" for number in range(25)]
    items = [{"type": "message", "role": "user", "content": text} for text in texts]
    for first, last in ((0, 20), (20, 25)):
        added = await sdk.conversations.items.create(made.id, items=items[first:last])
        assert [item.content[0].text for item in added.data] == texts[first:last]
    with pytest.raises(Exception, match="items: expected at most 20 elements, got 21"):
        await sdk.conversations.items.create(made.id, items=items[:21])
    for order in ("asc", "desc"):
        pages = sdk.conversations.items.list(
            made.id, limit=7, order=order, include=["reasoning.encrypted_content"]
        )
        listed = [item.content[0].text async for item in pages]
        assert listed == (texts if order == "asc" else texts[::-1])
    last = (await sdk.conversations.items.list(made.id, limit=1)).data[0]
    assert (await sdk.conversations.items.retrieve(last.id, conversation_id=made.id)).content == last.content
    await sdk.conversations.items.delete(last.id, conversation_id=made.id)
    assert len([item async for item in sdk.conversations.items.list(made.id)]) == 24
