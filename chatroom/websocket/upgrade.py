"""The opening handshake's answer, by trio-websocket (RFC 6455, section 4.2.2).

The library gets a vetted handshake, in memory, and sees the end of its stream when it has answered: what
follows is read and written by Wire. It never sees the socket, so nothing here waits for a peer.
"""

import trio
from trio_websocket import wrap_server_stream


class _Memory(trio.abc.Stream):
    """What the library reads, the handshake and then the end, and what it writes. No turn is given away."""

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
    """The 101 to a vetted `handshake`, which agrees on `subprotocol`."""
    memory = _Memory(handshake)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, memory)
        await request.accept(subprotocol=subprotocol)
        answer = memory.answer
        memory.answered.set()
    return answer
