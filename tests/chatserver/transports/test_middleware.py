"""What happens to every HTTP request, whatever becomes of its client."""

from __future__ import annotations

import asyncio
import logging

from tests.chatserver.transports.reading import error_of


async def test_who_leaves_amid_its_body_is_one_quiet_line_of_the_log(memory, caplog):
    """Not a traceback: it is no fault of ours, and whoever likes could fill the log."""
    caplog.set_level(logging.INFO)
    for path in (b"/v1/responses", b"/v1/chat/completions", b"/v1/conversations"):
        _, writer = await asyncio.open_connection("127.0.0.1", int(memory.url.rpartition(":")[2]))
        writer.write(b"POST " + path + b' HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{"input":')
        before = len(caplog.records)
        writer.close()
        async with asyncio.timeout(30):
            while len(caplog.records) == before:
                await asyncio.sleep(0.01)
        (record,) = caplog.records[before:]
        assert record.levelno == logging.INFO and record.exc_info is None
        assert f"{path.decode()}: the client left before its body had come" in record.getMessage()


async def test_a_time_out_that_nobody_foresaw_is_an_error_as_any_other(memory, monkeypatch, caplog):
    """Before the answer has begun: behind that it is a client that has stopped reading."""

    async def late() -> None:
        raise TimeoutError

    monkeypatch.setattr(memory.chat.models, "all", late)
    answer = await memory.http().get("/v1/models")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in error_of(answer)["message"]
    assert "TimeoutError" in caplog.text
