"""The floor: the same bytes from a bare uvloop server. `python -m tests.bench.relay.floor PORT RATE`.

No store, no engine, no HTTP parser, no tape: one timer writes one event to each connection. Asked for a chat
completion it writes that, as the worker of a gateway; anything but a POST is answered with a little JSON.
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
CHAT_EVENT = (
    b'data: {"id":"chatcmpl-Gk2a7eZcX0aUq3RrVh5yTw","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"scripted","choices":[{"index":0,"delta":{"content":%b},"finish_reason":null}],"usage":null}\n\n'
)
CHAT_END = b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
ABOUT = b'{"status":"ok","object":"list","data":[{"id":"scripted","object":"model"}],"model_path":"scripted"}'
END = (
    b'data: {"type":"response.incomplete","sequence_number":%d,"response":{"usage":{"output_tokens":%d}}}\n\n'
)


class Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self, readers: set[Reader]) -> None:
        self._readers = readers
        self._sent = self._tokens = 0
        self._chat = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % len(ABOUT) + ABOUT)
            return
        if data.startswith(b"PRI "):
            self._transport.close()  # HTTP/2: a gateway that asks whether this is a gRPC worker
            return
        if data.startswith(b"POST "):
            self._chat = b"/chat/" in data
        found = re.search(rb'"max_(?:output_|completion_)?tokens":\s*(\d+)', data)
        if found is not None:
            self._sent, self._tokens = 0, int(found[1])
            self._transport.write(HEAD)
            self._readers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._readers.discard(self)

    def step(self) -> None:
        """Write one token."""
        if self._sent == self._tokens:
            self._readers.discard(self)
            end = CHAT_END % self._sent if self._chat else END % (self._sent, self._sent)
            self._transport.write(_chunk(end) + b"0\r\n\r\n")
            return
        text = orjson.dumps(" floor")
        event = CHAT_EVENT % text if self._chat else EVENT % (self._sent, text, self._sent)
        self._transport.write(_chunk(event))
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
