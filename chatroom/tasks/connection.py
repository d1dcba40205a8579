"""One connection: its tasks, and its end.

1. This task is the parent of the others of the connection, the one that writes, and the only owner of its
   end. Whoever finds a reason asks for it (`End`); the first reason wins.
2. Closing is a request, cancelling is a drop: a close frame is put and seen out; then the tasks that read
   are cancelled, the peer's own close frame is awaited, and the socket is closed. Each wait has a deadline.
3. The reader's end decides how a connection ends that its peer has left, not the writer's failure: what
   was read is carried out.
4. However it ends, the member's departure is told to the broker, without waiting.
"""

import math
from contextlib import suppress
from dataclasses import dataclass

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from chatroom.adapters.transport import Stalled
from chatroom.adapters.wire import Wire
from chatroom.pure.pulse import Silent
from chatroom.pure.query import SUBPROTOCOL
from chatroom.tasks.authorization import Authorization
from chatroom.tasks.broker import Broker
from chatroom.tasks.ending import End, Ending
from chatroom.tasks.handler import Handler
from chatroom.tasks.reader import Reader
from chatroom.tasks.stay import Member
from chatroom.tasks.writer import Writer
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Unavailable
from chatroom.values.statistics import Drop

RECEIVE_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 5.0
FAULT = Disconnect(CloseCode.INTERNAL_ERROR, "internal error")
CLOSE_SECONDS = 2.0
"""How long a close frame may take to get out."""
LINGER_SECONDS = 1.5
"""How long the peer may take to answer it."""
FINISH_SECONDS = 0.5
"""How long closing the socket may take, where TLS still has something to say."""
CATCH_UP_SECONDS = 1.0
"""How long a stopping server waits for a member to have all that was shown."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How the connection begins: where its client resumes, and whether it asked for our subprotocol."""

    since: int | None
    epoch: str | None
    subprotocol: bool


class Connection:
    """The tasks of one connection. `run` returns when it is over and its socket closed."""

    __slots__ = ("_broker", "_handler", "_member", "_reader", "_wire", "_writer", "authorization", "end")

    def __init__(
        self,
        *,
        wire: Wire,
        end: End,
        member: Member,
        handler: Handler,
        reader: Reader,
        writer: Writer,
        authorization: Authorization,
        broker: Broker,
    ) -> None:
        self._wire = wire
        self._member = member
        self._handler = handler
        self._reader = reader
        self._writer = writer
        self._broker = broker
        self.end = end
        self.authorization = authorization
        wire.deliver_to(reader)
        end.listen(self._on_end)

    def stop_reading(self) -> None:
        """Take no further command: the server stops."""
        self._handler.stop()

    def on_timer(self, now: float) -> float:
        """Look after the peer's signs of life; return after how many seconds to call again."""
        try:
            return self._wire.on_timer(now)
        except Silent:
            self.end.ask(Ending(drop=Drop.SILENT, hard=True))
            return math.inf

    async def run(self, opening: Opening) -> Ending:
        """Serve until the end, close, and say why it ended.

        What a fault of ours raises in the tasks below leaves as an exception group, after the socket and the
        member's place have been given up.
        """
        soft = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, nursery, opening, name="accept")
                await self._writer.write()
                ending = self.end.ending
                assert ending is not None
                if not ending.hard:
                    await self._say_goodbye(ending)
                nursery.cancel_scope.cancel()
            soft = not ending.hard
        except* Exception:
            self.end.disconnect(FAULT)
            with trio.CancelScope(shield=True):
                await self._see_out()
            soft = True
            raise
        finally:
            self._broker.depart(self._member)
            await self._close_socket(soft=soft)
            self.end.forget()
        return ending

    def _on_end(self, ending: Ending) -> None:
        """An end was asked for, by any task: do at once what needs no wait, and wake this one."""
        self._handler.stop()
        if not self._is_patient(ending):
            self._put_close(ending)
        self._writer.interrupt(0 if ending.hard else CLOSE_SECONDS)

    def _is_patient(self, ending: Ending) -> bool:
        """Whether the peer is first given what it is owed: neither a stop nor its half-close cuts it off."""
        if ending.hard or self._wire.shut:
            return False
        return ending.disconnect is None or ending.disconnect.code == CloseCode.RESTART

    def _put_close(self, ending: Ending) -> None:
        self._member.gone = True
        if ending.disconnect is not None:
            self._wire.close(ending.disconnect.code, ending.disconnect.reason)

    async def _say_goodbye(self, ending: Ending) -> None:
        if self._is_patient(ending):
            with suppress(Stalled, Disconnect, Unavailable), trio.move_on_after(CATCH_UP_SECONDS):
                await self._writer.catch_up()
            self._put_close(ending)
        await self._see_out()

    async def _see_out(self) -> None:
        """Get out what is queued, a close frame at its end."""
        with suppress(Stalled), trio.move_on_after(CLOSE_SECONDS):
            await self._wire.flush()

    async def _accept(self, nursery: trio.Nursery, opening: Opening) -> None:
        """The task of the handshake, which the library answers; its reading task and ours follow."""
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                request = await wrap_server_stream(
                    nursery,
                    self._wire,
                    message_queue_size=0,  # messages don't pass the library
                    max_message_size=0,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                socket = await request.accept(subprotocol=SUBPROTOCOL if opening.subprotocol else None)
            await self._handler.enter(opening.since, opening.epoch)
        except ConnectionClosed as closed:
            self._reader.note_closed(closed)
        except trio.TooSlowError:
            self.end.ask(Ending(drop=Drop.STALLED, hard=True))
        else:
            nursery.start_soon(self._reader.read, socket, name="read")

    async def _close_socket(self, *, soft: bool) -> None:
        with trio.CancelScope(shield=True):
            if soft:
                with trio.move_on_after(LINGER_SECONDS):
                    with suppress(Stalled):
                        await self._wire.linger()
            with trio.move_on_after(FINISH_SECONDS):
                await self._wire.finish()
