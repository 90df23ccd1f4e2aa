"""The floor: the same bytes from a bare uvloop server. `python -m tests.bench.relay.floor PORT RATE`.

No store, no engine, no HTTP parser, no tape: one timer writes one event to each connection.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import orjson
import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'event: response.output_text.delta\nid: %d\ndata: {"type":"response.output_text.delta",'
    b'"item_id":"msg_Gk2a7eZcX0aUq3RrVh5yTw","output_index":0,"content_index":0,"logprobs":[],'
    b'"delta":%b,"sequence_number":%d}\n\n'
)
END = (
    b'data: {"type":"response.incomplete","sequence_number":%d,"response":{"usage":{"output_tokens":%d}}}\n\n'
)


class Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self, readers: set[Reader]) -> None:
        self._readers = readers
        self._sent = self._tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        found = re.search(rb'"max_output_tokens":(\d+)', data)
        if found is not None:
            self._tokens = int(found[1])
            self._transport.write(HEAD)
            self._readers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._readers.discard(self)

    def step(self) -> None:
        """Write one token."""
        if self._sent == self._tokens:
            self._readers.discard(self)
            self._transport.write(_chunk(END % (self._sent, self._sent)) + b"0\r\n\r\n")
            return
        self._transport.write(_chunk(EVENT % (self._sent, orjson.dumps(" floor"), self._sent)))
        self._sent += 1


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(port: int, rate: float) -> None:
    """Serve for ever."""
    readers: set[Reader] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Reader(readers), "127.0.0.1", port)
    due = loop.time()
    async with server:
        while True:
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(due - loop.time())
            for reader in tuple(readers):
                reader.step()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
