"""One connection: the objects that it is made of, and its end.

Owns the task of the connection and the steps of its end. Rules:

1. The connection's task writes, is the parent of the short tasks that it starts, and alone carries out its
   end. Any task that finds a reason asks for the end (`End`). The first reason wins.
2. A close is a request, and a drop is a reset. To close, the task puts a close frame or a farewell, and
   flushes it. Then it cancels the tasks that still work, awaits the peer's own close frame, and closes the
   socket. Each wait has a deadline.
3. When the peer has left, the reader decides how the connection ends, not a failure to write. So commands
   that were read are carried out.
4. However the connection ends, the broker is told that the member departs. That never waits.

It doesn't know commands or rooms.
"""

import logging
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass

import trio

from chatroom.auth.tokens import Identity
from chatroom.connections.authorization import Authorization
from chatroom.connections.ending import FAULT, End, Ending
from chatroom.connections.handler import Handler
from chatroom.connections.incoming import Incoming
from chatroom.connections.outgoing import Outgoing
from chatroom.connections.services import ClientInfo, Services
from chatroom.core.errors import CloseCode, Disconnect, Unavailable
from chatroom.core.logevents import log_event
from chatroom.net.transport import Stalled, Transport
from chatroom.protocol.session import Session
from chatroom.rooms.room import Member
from chatroom.websocket.outbound import Outbound
from chatroom.websocket.wire import Wire

CLOSE_SECONDS = 2.0
"""How long the close frame may take to be sent."""
LINGER_SECONDS = 1.5
"""How long the peer may take to answer it."""
CATCH_UP_SECONDS = 1.0
"""How long a stopping server waits until a member has got everything that was shown."""


@dataclass(frozen=True, slots=True)
class AcceptedHandshake:
    """The room that a connection joins, and the `answer` that accepts its handshake.

    `early` are the bytes that the client sent behind its handshake. `since` and `epoch` say where the client
    resumes, if it does.
    """

    room: str
    answer: bytes
    early: bytes = b""
    since: int | None = None
    epoch: str | None = None


class ServedConnection(ABC):
    """What all connections in a room share: the one task, and the steps of the end."""

    __slots__ = ("_broker", "_outbound", "_outgoing", "authorization", "client", "end")

    authorization: Authorization

    def __init__(
        self, client: ClientInfo, outbound: Outbound, services: Services, *, silent: bool = False
    ) -> None:
        """`outbound` calls `_on_pending`. `silent`: see Member."""
        self.client = client
        self._broker = services.broker
        self._outbound = outbound
        self.end = End(self._on_end)
        self._outgoing = Outgoing(client.username, outbound, self.end, services, silent=silent)

    @property
    def member(self) -> Member:
        """The connection as the broker sees it."""
        return self._outgoing.member

    @abstractmethod
    def stop_reading(self) -> None:
        """Take no further command, because the server stops."""

    @abstractmethod
    def log_end(self, ending: Ending) -> None:
        """Log that the connection is over."""

    @abstractmethod
    def _begin(self, nursery: trio.Nursery) -> None:
        """Have the member enter its room, and read what comes."""

    @abstractmethod
    def _say_farewell(self, why: Disconnect) -> None:
        """Put the last bytes: they say why."""

    @abstractmethod
    def _forget(self) -> None:
        """The connection is over: nothing of it must be called any more."""

    @abstractmethod
    async def _close_socket(self, *, soft: bool) -> None:
        """Close the socket, in order or by a reset."""

    async def run(self, stopping: Disconnect | None = None) -> Ending:
        """Serve until the end, close, and return why the connection ended.

        With `stopping`, the server's stop has begun: the client gets this farewell, and nothing else.

        Error handling: what a fault of ours raises in the tasks below leaves as an exception group, after the
        socket is closed and the member has left its room.
        """
        soft = False
        try:
            async with trio.open_nursery() as nursery:
                self._begin(nursery)
                if stopping is not None:
                    self.end.disconnect(stopping)
                await self._outgoing.write()
                ending = self.end.ending
                assert ending is not None
                self.end.raise_fault()
                if not ending.hard:
                    await self._close_gracefully(ending)
                nursery.cancel_scope.cancel()
            soft = not ending.hard
        except* Exception:
            self.end.disconnect(FAULT)
            with trio.CancelScope(shield=True):
                await self._flush()
            soft = True
            raise
        finally:
            self._broker.depart(self.member)
            self.end.forget()
            self._forget()
            await self._close_socket(soft=soft)
        return ending

    def _on_pending(self) -> None:
        """Bytes are queued, or the socket is broken."""
        self._outgoing.wake()

    def _on_end(self, ending: Ending) -> None:
        """An end was asked for, by any task. Do what needs no wait, and wake the connection's task."""
        self.stop_reading()
        if not self._delivers_first(ending):
            self._put_farewell(ending)
        self._outgoing.interrupt(0 if ending.hard else CLOSE_SECONDS)

    def _delivers_first(self, ending: Ending) -> bool:
        """Whether the peer first gets everything that was shown: at a stop, and after its own half-close."""
        if ending.hard or self._outbound.shut:
            return False
        return ending.disconnect is None or is_restart(ending)

    def _put_farewell(self, ending: Ending) -> None:
        self.member.gone = True
        if ending.disconnect is not None:
            self._say_farewell(ending.disconnect)

    async def _close_gracefully(self, ending: Ending) -> None:
        if self._delivers_first(ending):
            with suppress(Stalled, Disconnect, Unavailable), trio.move_on_after(CATCH_UP_SECONDS):
                await self._outgoing.catch_up()
            self._put_farewell(ending)
        await self._flush()

    async def _flush(self) -> None:
        """Flush the queue, which ends with the farewell."""
        with suppress(Stalled), trio.move_on_after(CLOSE_SECONDS):
            await self._outbound.flush()


class Connection(ServedConnection):
    """One client's WebSocket. `run` returns when the connection is over and its socket is closed."""

    __slots__ = ("_handler", "_handshake", "_incoming", "_wire")

    def __init__(
        self,
        transport: Transport,
        client: ClientInfo,
        identity: Identity,
        handshake: AcceptedHandshake,
        services: Services,
    ) -> None:
        self._handshake: AcceptedHandshake | None = handshake  # until the connection has begun
        self._wire = Wire(transport, services.limits, on_pending=self._on_pending)
        super().__init__(client, self._wire.outbound, services)
        session = Session(client.username, handshake.room, identity.rights, services.limits)
        self.authorization = Authorization(identity, session, self._outgoing, self.end, services.expiry)
        self._handler = Handler(session, self._outgoing, self.authorization, client, services)
        self._incoming = Incoming(session, self._handler, self._wire, self.end, services)

    def stop_reading(self) -> None:
        """See ServedConnection."""
        self._handler.stop()

    def log_end(self, ending: Ending) -> None:
        """See ServedConnection."""
        code = None if ending.disconnect is None else int(ending.disconnect.code)
        room = self.authorization.room
        log_event(logging.INFO, "LEAVE", **self.client.fields(), room=room, code=code, drop=ending.drop)

    def _begin(self, nursery: trio.Nursery) -> None:
        handshake, self._handshake = self._handshake, None
        assert handshake is not None, "a connection is run once"
        self._outbound.put(handshake.answer)
        self._incoming.begin(nursery, handshake.since, handshake.epoch, handshake.early)

    def _say_farewell(self, why: Disconnect) -> None:
        self._outbound.close(why.code, why.reason)

    def _forget(self) -> None:
        self._incoming.forget()

    async def _close_socket(self, *, soft: bool) -> None:
        try:
            if soft:
                with trio.move_on_after(LINGER_SECONDS, shield=True), suppress(Stalled):
                    await self._wire.linger()
                if not is_restart(self.end.ending):  # all clients wait for the restart
                    await self._wire.wait_confirmed()
        finally:
            with trio.CancelScope(shield=True):
                await self._wire.finish(hard=not soft)


def is_restart(ending: Ending | None) -> bool:
    """Whether the connection ends because the server restarts."""
    disconnect = None if ending is None else ending.disconnect
    return disconnect is not None and disconnect.code == CloseCode.RESTART
