"""A server that sends back whatever it is sent, on the serving stack of chatroom with its limits raised.

`python -m tests.support.echo_server` listens on a free port of the loopback and says which one. It ends
when its standard input does.
"""

import socket
from functools import partial

import trio

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.http.frontdoor import receive
from chatroom.http.handshake import PATHS, Upgrade
from chatroom.net.poller import ReadPoller, make_poller
from chatroom.net.transport import SocketTransport
from chatroom.websocket.framing import text_frame
from chatroom.websocket.upgrade import answer_handshake
from chatroom.websocket.wire import Wire

LIMITS = Limits(frame_bytes=1 << 26, frame_fragments=1 << 26, frame_seconds=60.0, control_rate=0)
CLOSE_SECONDS = 2.0


class EchoSite:
    """Lets everybody in."""

    draining = False
    paths = PATHS

    def answer(self, request: Request) -> Response:
        raise Refusal(426, "Upgrade Required")

    def vet(self, request: Request, upgrade: Upgrade | None) -> None:
        pass

    async def check_ban(self, vetted: None) -> None:
        await trio.lowlevel.checkpoint()

    def admit(self, vetted: None, upgrade: Upgrade) -> None:
        return None

    def preview(self, vetted: None) -> Response:
        raise AssertionError("nobody asks")

    def untrusted_proxy(self, peer: Peer) -> None:
        pass

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        pass


class Echo:
    """One connection: what comes goes back, and it ends as the protocol wants it."""

    def __init__(self, transport: SocketTransport) -> None:
        self.wire = Wire(transport, LIMITS, on_pending=self.wake, binary=True)
        self.pending = trio.Event()
        self.over = trio.Event()

    def wake(self) -> None:
        self.pending.set()

    def on_readable(self) -> None:
        """See ReadPoller."""
        self.wire.read()
        self.pull()

    def pull(self) -> None:
        """Answer all that has come."""
        inbound, outbound = self.wire.inbound, self.wire.outbound
        message: str | bytes | None = ""
        while message is not None:
            message = inbound.next()
            for payload in inbound.pings or ():
                outbound.pong(payload)
            inbound.pings = None
            if message is not None:
                outbound.put(frame_of(message))
        if inbound.fault is not None:
            outbound.close(inbound.fault.code, inbound.fault.reason)
        elif inbound.closed:
            outbound.close_with(inbound.close_reply)
        elif not self.wire.ended:
            return
        self.wire.unwatch()
        self.over.set()

    async def run(self, answer: bytes, early: bytes) -> None:
        self.wire.outbound.put(answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write)
            self.wire.watch(self.on_readable)
            if early:
                self.wire.take(early)
                self.pull()
            await self.over.wait()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(CLOSE_SECONDS):
            await self.wire.linger()
        await self.wire.finish()

    async def write(self) -> None:
        while True:
            await self.pending.wait()
            self.pending = trio.Event()
            await self.wire.outbound.flush()


def frame_of(message: str | bytes) -> bytes:
    """The message as it came: we send only text ourselves, but a binary frame differs in one byte."""
    if isinstance(message, str):
        return text_frame(message.encode())
    return b"\x82" + text_frame(message)[1:]


async def serve(poller: ReadPoller, stream: trio.SocketStream) -> None:
    transport = SocketTransport(socket.socket(fileno=stream.socket.detach()), LIMITS, poller)
    admitted = await receive(transport, EchoSite(), LIMITS, Peer("127.0.0.1", exempt=True))
    if admitted is not None:
        await Echo(transport).run(await answer_handshake(admitted.head, None), admitted.trailing)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        poller = make_poller()
        nursery.start_soon(poller.run)
        listeners = await nursery.start(partial(trio.serve_tcp, partial(serve, poller), 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)
        stdin = trio.lowlevel.FdStream(0)
        while await stdin.receive_some():
            pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
