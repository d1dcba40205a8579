"""One connection: its tasks, and its end.

1. This task is the parent of all others of the connection and the only owner of its end. Whoever finds a
   reason asks for it (`End`); the first reason wins.
2. Closing is a request, cancelling is a drop: a close frame is put, the writer gets it out, the peer's own
   is awaited; then the tasks are cancelled and the socket is closed. Each wait has a deadline.
3. The reader's end decides how a connection ends that its peer has left, not the writer's failure: what
   was read is carried out.
4. However it ends, the member's departure is told to the broker, without waiting.
"""

from contextlib import suppress
from dataclasses import dataclass

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from chatroom.adapters.transport import Stalled
from chatroom.adapters.wire import Wire
from chatroom.pure.pulse import Silent
from chatroom.pure.query import SUBPROTOCOL
from chatroom.tasks.broker import Broker
from chatroom.tasks.ending import CLIENT_LEFT, End, Ending
from chatroom.tasks.reader import Reader
from chatroom.tasks.stay import Member
from chatroom.tasks.writer import Writer
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Unavailable
from chatroom.values.statistics import Drop

MESSAGE_QUEUE = 16
RECEIVE_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 5.0
CLOSE_SECONDS = 2.0
"""How long a close frame may take to get out, and then the peer to answer it."""
CATCH_UP_SECONDS = 1.0
"""How long a stopping server waits for a member to have all that was shown."""

_PARSER_CODES = {
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.INVALID_UTF8: "text is not UTF-8",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """How the connection begins: where its client resumes, and whether it asked for our subprotocol."""

    since: int | None
    epoch: str | None
    subprotocol: bool


class Connection:
    """The tasks of one connection. `run` returns when it is over and its socket closed."""

    __slots__ = (
        "_broker",
        "_member",
        "_reader",
        "_reading",
        "_wire",
        "_writer",
        "end",
    )

    def __init__(
        self,
        *,
        wire: Wire,
        end: End,
        member: Member,
        reader: Reader,
        writer: Writer,
        broker: Broker,
    ) -> None:
        self._wire = wire
        self._member = member
        self._reader = reader
        self._writer = writer
        self._broker = broker
        self.end = end
        self._reading = trio.CancelScope()

    def stop_reading(self) -> None:
        """Take no further command: the server stops."""
        self._reading.cancel()

    async def run(self, opening: Opening) -> Ending:
        """Serve until the end, close, and say why it ended.

        What a fault of ours raises in the tasks below leaves as an exception group, after the socket and the
        member's place have been given up.
        """
        soft = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._accept(nursery, opening)
                ending = await self._watch()
                await self._say_goodbye(ending)
                nursery.cancel_scope.cancel()
            soft = not ending.hard
        finally:
            self._broker.depart(self._member)
            await self._close_socket(soft=soft)
        return ending

    async def _accept(self, nursery: trio.Nursery, opening: Opening) -> None:
        """Have the library answer the handshake, and start reading."""
        with trio.move_on_after(HANDSHAKE_SECONDS) as scope:
            request = await wrap_server_stream(
                nursery,
                self._wire,
                message_queue_size=MESSAGE_QUEUE,
                max_message_size=2**62,  # the Wire counts, and in bytes
                receive_buffer_size=RECEIVE_BYTES,
            )
            try:
                socket = await request.accept(subprotocol=SUBPROTOCOL if opening.subprotocol else None)
            except ConnectionClosed:
                self.end.ask(CLIENT_LEFT)
            else:
                nursery.start_soon(self._read, socket, opening)
        if scope.cancelled_caught:
            self.end.ask(Ending(drop=Drop.STALLED, hard=True))

    async def _read(self, socket: WebSocketConnection, opening: Opening) -> None:
        """The task that reads; its end decides the connection's."""
        try:
            with self._reading:
                await self._reader.enter(opening.since, opening.epoch)
                await self._reader.read(socket)
        except Disconnect as why:
            self.end.disconnect(why)
        except ConnectionClosed as closed:
            self.end.ask(self._judge(closed))

    def _judge(self, closed: ConnectionClosed) -> Ending:
        """How a connection ends that the library calls closed."""
        if self._wire.close_replied or closed.reason is None:
            return CLIENT_LEFT
        for code, text in _PARSER_CODES.items():
            if closed.reason.code == code:
                return Ending(Disconnect(code, text), Drop.of(code))
        return Ending(drop=Drop.BROKEN, hard=True) if self._wire.broken else CLIENT_LEFT

    async def _watch(self) -> Ending:
        """Tend the keepalive until an end is asked for."""
        while self.end.ending is None:
            try:
                wait = self._wire.tend(trio.current_time())
            except Silent:
                self.end.ask(Ending(drop=Drop.SILENT, hard=True))
                break
            with trio.move_on_after(wait):
                await self.end.wait()
        assert self.end.ending is not None
        return self.end.ending

    async def _say_goodbye(self, ending: Ending) -> None:
        """Put the close frame and see it out, unless the ending is hard."""
        self._reading.cancel()
        if ending.disconnect is not None and ending.disconnect.code == CloseCode.RESTART:
            with trio.move_on_after(CATCH_UP_SECONDS):
                await self._writer.wait_caught_up()
        self._member.gone = True
        if ending.hard:
            return
        if ending.disconnect is not None:
            self._wire.close(ending.disconnect.code, ending.disconnect.reason)
        self._writer.stop()
        with trio.move_on_after(CLOSE_SECONDS):
            await self._writer.stopped.wait()

    async def _close_socket(self, *, soft: bool) -> None:
        with trio.CancelScope(shield=True):
            if soft:
                with trio.move_on_after(CLOSE_SECONDS):
                    with suppress(Stalled):
                        await self._wire.linger()
            with trio.move_on_after(CLOSE_SECONDS):
                await self._wire.finish()

    async def _write(self) -> None:
        """The task that writes."""
        try:
            await self._writer.write()
        except Stalled:
            self.end.ask(Ending(drop=Drop.STALLED, hard=True))
        except Disconnect as why:
            self.end.disconnect(why)
        except Unavailable:
            self.end.disconnect(Disconnect(CloseCode.INTERNAL_ERROR, "the log can't be read now"))
