"""Reception: from an accepted socket to a served connection, one task each.

1. There is one exception barrier per connection, here: whatever happens in one connection, it ends that
   connection, is logged once, and nothing else ends.
2. A place that was taken is given back however the connection ends.
"""

import logging
import socket
import ssl
from collections import Counter
from functools import partial
from ipaddress import ip_address
from itertools import count
from typing import NamedTuple

import trio

from chatroom.adapters.engine import Engine
from chatroom.adapters.frontdoor import Admitted, receive
from chatroom.adapters.transport import SocketTransport, TlsTransport
from chatroom.adapters.wire import Wire
from chatroom.lobby import Lobby
from chatroom.pure.bucket import BucketStore
from chatroom.pure.session import Session
from chatroom.pure.tallies import Place
from chatroom.site import Admission, ChatSite, Entrance
from chatroom.tasks.broker import Broker
from chatroom.tasks.connection import Connection, Opening
from chatroom.tasks.ending import End, Ending
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.tasks.programme import Programme
from chatroom.tasks.reader import Reader, Who
from chatroom.tasks.stay import Member
from chatroom.tasks.tender import Tender
from chatroom.tasks.writer import Writer
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.http import Peer
from chatroom.values.journal import note
from chatroom.values.limits import Limits
from chatroom.values.statistics import Drop
from chatroom.values.traces import whereabouts

RESTARTING = Disconnect(CloseCode.RESTART, "server is restarting")
UNIX_PEER = Peer("unix", exempt=True)


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of an accepted socket."""
    if sock.family == socket.AF_UNIX:
        return UNIX_PEER
    try:
        address = str(sock.getpeername()[0]).partition("%")[0]
    except OSError:  # gone already; the first read will tell
        return Peer("gone")
    return Peer(address, exempt=ip_address(address).is_loopback)


class _Guest(NamedTuple):
    connection: Connection
    place: Place
    opening: Opening
    who: Who


class Reception:
    """Takes in accepted sockets and serves them."""

    def __init__(
        self,
        *,
        site: ChatSite,
        entrance: Entrance,
        broker: Broker,
        engine: Engine,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._site = site
        self._entrance = entrance
        self._broker = broker
        self._engine = engine
        self._limits = limits
        self._tls = tls
        self._pace = BucketStore(limits.message_rate, limits.message_burst)
        self._numbers = count(1)
        self._connections: set[Connection] = set()
        self._all_gone = trio.Event()
        self.lobby = Lobby(limits.unauthenticated)
        self.tender = Tender()
        self.drops: Counter[Drop] = Counter()

    async def serve(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve one accepted socket to its end. The barrier: no exception but cancellation leaves."""
        try:
            if (guest := await self._receive(sock, secure=secure)) is not None:
                with guest.place:
                    await self._entertain(guest)
        except* Exception as group:
            note(logging.ERROR, "connection_failed", **whereabouts(group))

    async def _receive(self, sock: socket.socket, *, secure: bool) -> "_Guest | None":
        """Who has been let in at the front door, if anybody."""
        peer = peer_of(sock)
        with self.lobby.visit():
            transport = await self._begin(sock, secure=secure)
            if transport is None:
                return None
            admitted = await receive(transport, self._site, self._limits, peer, secure=secure)
            return None if admitted is None else self._assemble(transport, admitted)
        return None

    async def _begin(self, sock: socket.socket, *, secure: bool) -> SocketTransport | TlsTransport | None:
        """The transport of a socket; None if there is none to be had."""
        plain = SocketTransport(sock, self._limits)
        if not secure:
            return plain
        assert self._tls is not None
        tls = TlsTransport(plain, self._tls)
        try:
            with trio.fail_after(self._limits.head_seconds):
                await tls.do_handshake()
        except (OSError, trio.TooSlowError):
            plain.abort()
            return None
        except BaseException:
            plain.abort()
            raise
        return tls

    async def _entertain(self, guest: "_Guest") -> None:
        """Run the connection, known to the server's stop and to the keepalive."""
        connection = guest.connection
        if self._site.draining:
            connection.end.disconnect(RESTARTING)
        self.tender.add(connection, trio.current_time())
        self._connections.add(connection)
        ending = Ending(drop=Drop.INTERNAL_ERROR)
        try:
            ending = await connection.run(guest.opening)
        finally:
            self.tender.remove(connection)
            self._connections.remove(connection)
            if not self._connections:
                self._all_gone.set()
            if ending.drop is not None:
                self.drops[ending.drop] += 1
            code = None if ending.disconnect is None else int(ending.disconnect.code)
            note(logging.INFO, "LEAVE", **guest.who._asdict(), code=code, drop=ending.drop)

    def _assemble(
        self,
        transport: SocketTransport | TlsTransport,
        admitted: Admitted[Admission],
    ) -> "_Guest":
        admission = admitted.admission
        who = Who(next(self._numbers), admission.username, admission.peer.address)
        end = End()
        outlet = ConnectionOutlet(end)
        wire = Wire(
            transport,
            self._limits,
            initial=admitted.head + admitted.trailing,
            on_pending=outlet.wake,
            on_fault=end.disconnect,
        )
        outlet.attach(wire)
        member = Member(admission.username, outlet)
        programme = Programme(
            member, wire, self._engine, let_go=self._broker.let_go, delivered=self._broker.fanout.count
        )
        reader = Reader(
            session=Session(admission.username, admission.wish.room, admission.rights, self._limits),
            member=member,
            outlet=outlet,
            wire=wire,
            broker=self._broker,
            engine=self._engine,
            pace=self._pace,
            limits=self._limits,
            verify=partial(self._entrance.recognise, admission.peer),
            who=who,
        )
        writer = Writer(wire, outlet, programme, end)
        connection = Connection(
            wire=wire, end=end, member=member, reader=reader, writer=writer, broker=self._broker
        )
        wish = admission.wish
        opening = Opening(wish.since, wish.epoch, admission.subprotocol)
        return _Guest(connection, admission.place, opening, who)

    # For the server's stop

    def stop_reading(self) -> None:
        """No connection takes a further command."""
        for connection in self._connections:
            connection.stop_reading()

    async def end_all(self, why: Disconnect) -> None:
        """Ask all connections to end, and wait until they are gone."""
        self._all_gone = trio.Event()
        for connection in self._connections:
            connection.end.disconnect(why)
        if self._connections:
            await self._all_gone.wait()
