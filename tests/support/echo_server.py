"""A server that sends back whatever it is sent, on the serving stack of chatroom with its limits raised.

`python -m tests.support.echo_server` listens on a free port of the loopback and says which one. It ends
when its standard input does.
"""

from functools import partial

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from chatroom.adapters.frontdoor import receive
from chatroom.adapters.transport import SocketTransport
from chatroom.adapters.wire import Wire
from chatroom.pure.frames import text_frame
from chatroom.pure.handshake import Upgrade
from chatroom.values.errors import Disconnect, Refusal
from chatroom.values.http import Peer, Request, Response
from chatroom.values.limits import Limits

LIMITS = Limits(frame_bytes=1 << 26, frame_fragments=1 << 26, frame_seconds=60.0, control_rate=0)
CLOSE_SECONDS = 2.0
LIBRARYS_CODES = {1002: "protocol error", 1007: "text is not UTF-8"}  # of a wrong close frame


class EchoSite:
    """Lets everybody in."""

    draining = False

    def answer(self, request: Request) -> Response:
        raise Refusal(426, "Upgrade Required")

    def admit(self, request: Request, upgrade: Upgrade) -> None:
        return None

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        pass


class Echo:
    """One connection: its Inlet, its fault, the writer's wake-up, and its end as the protocol wants it."""

    crowded = False

    def __init__(self, transport: SocketTransport, initial: bytes) -> None:
        self.wire = Wire(
            transport, LIMITS, initial=initial, on_pending=self.wake, on_fault=self.note_fault, binary=True
        )
        self.wire.deliver_to(self)
        self.fault: Disconnect | None = None
        self.pending = trio.Event()

    def take(self, message: str | bytes) -> None:
        self.wire.put(frame_of(message))

    async def wait_room(self) -> None:
        raise AssertionError("it is never crowded")

    def close(self) -> None:
        pass

    def wake(self) -> None:
        self.pending.set()

    def note_fault(self, fault: Disconnect) -> None:
        self.fault = fault

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write)
            await self.answer(nursery)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(CLOSE_SECONDS):
            await self.wire.linger()
        await self.wire.finish()

    async def write(self) -> None:
        while True:
            await self.pending.wait()
            self.pending = trio.Event()
            await self.wire.flush()

    async def answer(self, nursery: trio.Nursery) -> None:
        request = await wrap_server_stream(nursery, self.wire, 16, 1 << 62, 64 * 1024)
        try:
            connection = await request.accept()
            await connection.get_message()  # none passes the library: it is its word for the end
        except ConnectionClosed as closed:
            code = 1000 if closed.reason is None else closed.reason.code
        if self.fault is not None:
            self.wire.close(self.fault.code, self.fault.reason)
        elif not self.wire.close_replied and code in LIBRARYS_CODES:
            self.wire.close(code, LIBRARYS_CODES[code])


def frame_of(message: str | bytes) -> bytes:
    """The message as it came: we send only text ourselves, but a binary frame differs in one byte."""
    if isinstance(message, str):
        return text_frame(message.encode())
    return b"\x82" + text_frame(message)[1:]


async def serve(stream: trio.SocketStream) -> None:
    transport = SocketTransport.take(stream, LIMITS)
    admitted = await receive(transport, EchoSite(), LIMITS, Peer("127.0.0.1", exempt=True))
    if admitted is not None:
        await Echo(transport, admitted.head + admitted.trailing).run()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)
        stdin = trio.lowlevel.FdStream(0)
        while await stdin.receive_some():
            pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
