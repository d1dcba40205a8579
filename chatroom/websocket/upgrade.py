"""The answer to the opening handshake, by trio-websocket (RFC 6455, section 4.2.2).

Owns the stream in memory between the library and the server. Rules:

1. The library gets a checked handshake from memory, and the end of its stream when it has answered. Wire
   reads and writes everything that follows.
2. The library never gets the socket, so nothing here waits for a peer.

It doesn't know whether a client is admitted.
"""

import trio
from trio_websocket import wrap_server_stream


class _Memory(trio.abc.Stream):
    """The library reads the handshake and then the end from here, and writes its answer. No task switches."""

    def __init__(self, handshake: bytes) -> None:
        self._handshake = handshake
        self.answer = b""
        self.answered = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data, self._handshake = self._handshake, b""
        if not data:
            await self.answered.wait()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.answer += data

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


async def answer_handshake(handshake: bytes, subprotocol: str | None) -> bytes:
    """The answer 101 to a checked `handshake`. It agrees on `subprotocol`."""
    memory = _Memory(handshake)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, memory)
        await request.accept(subprotocol=subprotocol)
        answer = memory.answer
        memory.answered.set()
    return answer
