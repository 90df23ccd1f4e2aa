"""What happens to every HTTP request, whatever becomes of its client."""

from __future__ import annotations

import asyncio
import logging


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
