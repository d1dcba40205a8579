"""The acceptor: from an accepted socket to a served connection, one task each.

Acceptor: from an accepted socket to a served connection, one task each.

1. There is one exception barrier per connection, here: whatever happens in one connection, it ends that
   connection, is logged once, and nothing else ends.
2. A place that was taken is given back however the connection ends.

The lobby: sockets that have been accepted and not yet let in, bounded in number.

1. While it is full, nobody is accepted. A place is not reserved: of several listeners that wait for one,
   each may let somebody in.
2. Meanwhile the one that has waited longest is dropped, once it has waited over a second.
"""

import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from types import TracebackType

import trio

from chatroom.auth.tokens import Verifier
from chatroom.connections.connection import Connection, Opening
from chatroom.connections.ending import Ending
from chatroom.connections.services import ForbiddenCommands, Services, Who
from chatroom.connections.timers import Timers
from chatroom.core.connectionlimits import Place
from chatroom.core.errors import Disconnect, Refusal
from chatroom.core.http import Peer
from chatroom.core.limits import Limits
from chatroom.core.logevents import log_event, whereabouts
from chatroom.core.pace import BucketStore
from chatroom.core.statistics import Drop
from chatroom.engines.engine import Engine
from chatroom.http.frontdoor import Admitted, read_introduction, receive, turn_away
from chatroom.http.handshake import SUBPROTOCOL
from chatroom.http.site import Admission, ChatSite, Entrance, MetricsSite
from chatroom.net.poller import ReadPoller
from chatroom.net.proxies import UNIX, Introduction, Proxies, read_address
from chatroom.net.tls import TlsTransport
from chatroom.net.transport import SocketTransport, Transport
from chatroom.rooms.broker import Broker
from chatroom.websocket.upgrade import answer_handshake

PATIENCE = 1.0


class PendingHandshakes:
    """At most `size` visitors at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._visitors: OrderedDict[trio.CancelScope, float] = OrderedDict()  # by arrival
        self._place_left = trio.Event()

    def __len__(self) -> int:
        return len(self._visitors)

    def visit(self) -> "Visit":
        """A context in which to be in the lobby; it is cancelled if others need the place."""
        return Visit(self)

    def arrive(self, visitor: trio.CancelScope) -> None:
        """`visitor` takes a place."""
        self._visitors[visitor] = trio.current_time()

    def depart(self, visitor: trio.CancelScope) -> None:
        """`visitor` needs its place no more."""
        self._visitors.pop(visitor, None)
        self._place_left.set()

    async def wait_empty(self) -> None:
        """Wait until nobody is there."""
        while self._visitors:
            if self._place_left.is_set():
                self._place_left = trio.Event()
            await self._place_left.wait()

    async def wait_place(self) -> None:
        """Wait until one more may come in."""
        while len(self._visitors) >= self._size:
            oldest, arrived = next(iter(self._visitors.items()))
            if self._place_left.is_set():
                self._place_left = trio.Event()  # one for all who wait: there may be several listeners
            with trio.move_on_at(arrived + PATIENCE) as waiting:
                await self._place_left.wait()
            if waiting.cancelled_caught and len(self) >= self._size and oldest in self._visitors:
                oldest.cancel()
                del self._visitors[oldest]


class Visit:
    """One visitor's time in the lobby."""

    __slots__ = ("_lobby", "_scope")

    def __init__(self, lobby: PendingHandshakes) -> None:
        self._lobby = lobby
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._lobby.arrive(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._lobby.depart(self._scope)
        return self._scope.__exit__(kind, error, trace)


FAILED = Ending(drop=Drop.INTERNAL_ERROR)
"""How a connection has ended that says nothing else: by an exception."""
LONGEST_NAP = 0.5
"""Seconds. The time of day may be set: after so long it is looked at again for tokens that have expired."""
METRICS_VISITORS = 16
"""Sockets at a time at a port for metrics; scrapers keep theirs open."""
UNIX_PEER = Peer(UNIX, exempt=True)


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of an accepted socket."""
    if sock.family == socket.AF_UNIX:
        return UNIX_PEER
    try:
        return _peer_at(sock.getpeername()[0])
    except OSError:  # gone already; the first read will tell
        return Peer("gone")


@lru_cache(1024)
def _peer_at(address: str) -> Peer:
    """One value for all connections of an address."""
    found = read_address(address.partition("%")[0])
    assert found is not None  # the kernel says so
    return Peer(str(found), exempt=found.is_loopback)


class Guest:
    """A connection that has been let in, from then to its end: a context that knows it in the reception."""

    __slots__ = ("_reception", "connection", "ending", "place")

    def __init__(self, reception: "Acceptor", connection: Connection, place: Place) -> None:
        self._reception = reception
        self.connection = connection
        self.place = place
        self.ending = FAILED

    def __enter__(self) -> None:
        self._reception.welcome(self)

    def __exit__(self, *_: object) -> None:
        self._reception.dismiss(self)


class Acceptor:
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
        proxies: Proxies,
        proxy_protocol: bool = False,
        wall_clock: Callable[[], float],
        run: str,
        arrivals: ReadPoller,
    ) -> None:
        self._site = site
        self._metrics_site = MetricsSite(site)
        self._limits = limits
        self.tls = tls
        self._proxies = proxies
        self._proxy_protocol = proxy_protocol
        self._told_of_headers = False
        self._arrivals = arrivals
        self.expiry = Timers(wall_clock, longest=LONGEST_NAP)
        self.keepalive = Timers()
        self.forbidden = ForbiddenCommands(self.keepalive.add)
        self._services = Services(
            broker=broker,
            engine=engine,
            limits=limits,
            pace=BucketStore(limits.message_rate, limits.message_burst),
            keepalive=self.keepalive,
            expiry=self.expiry,
            renew=entrance.renew,
            forbidden=self.forbidden,
        )
        self._run = run
        self._numbers = count(1)
        self._connections: set[Connection] = set()
        self._farewell: Disconnect | None = None
        self._gone = trio.Event()
        self.lobby = PendingHandshakes(limits.unauthenticated)
        self.desk = PendingHandshakes(METRICS_VISITORS)
        self.drops: Counter[Drop] = Counter()

    async def serve(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve one accepted socket to its end. The barrier: no exception but cancellation leaves."""
        try:
            guest = await self._receive(sock, secure=secure)
            if guest is not None:
                with guest:
                    guest.ending = await guest.connection.run(self._farewell)
        except* Exception as group:
            log_event(logging.ERROR, "connection_failed", **whereabouts(group))

    async def serve_metrics(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve a socket of a port for metrics, to whom a crowd at the other ones is no hindrance."""
        try:
            with self.desk.visit():
                transport = SocketTransport(sock, self._limits)
                await receive(transport, self._metrics_site, self._limits, peer_of(sock), secure=secure)
        except* Exception as group:
            log_event(logging.ERROR, "connection_failed", **whereabouts(group))

    async def _receive(self, sock: socket.socket, *, secure: bool) -> Guest | None:
        """Who has been let in at the front door, if anybody."""
        peer = peer_of(sock)
        with self.lobby.visit():
            plain = SocketTransport(sock, self._limits, self._arrivals)
            proxied = self._proxy_protocol and self._proxies.trusts(peer)
            introduction = await self._introduce(plain, peer, secure=secure) if proxied else Introduction()
            if introduction is None:
                return None
            transport = await self._begin_tls(plain) if secure else plain
            if transport is None:
                return None
            admitted = await receive(
                transport,
                self._site,
                self._limits,
                peer if introduction.address is None else Peer(introduction.address),
                secure=secure or introduction.secure,
                proxies=self._proxies,
                introduced=introduction.address is not None,
            )
            if admitted is None:
                return None
            try:
                return await self._begin(transport, admitted)
            except BaseException:
                transport.abort()
                admitted.admission.place.leave()
                raise
        return None

    async def _begin(self, transport: Transport, admitted: Admitted[Admission]) -> Guest:
        """The connection of a client that has been let in; nothing of it runs yet."""
        admission = admitted.admission
        answer = await answer_handshake(admitted.head, SUBPROTOCOL if admission.subprotocol else None)
        who = Who(f"{self._run}-{next(self._numbers)}", admission.username, admission.peer)
        wish = admission.wish
        opening = Opening(wish.room, answer, admitted.trailing, wish.since, wish.epoch)
        connection = Connection(transport, who, admission.identity, opening, self._services)
        return Guest(self, connection, admission.place)

    async def _introduce(self, plain: SocketTransport, peer: Peer, *, secure: bool) -> Introduction | None:
        """Whom a trusted proxy names before TLS begins; None, the connection closed, where it doesn't."""
        try:
            introduction = await read_introduction(plain, self._limits)
        except Refusal as refusal:
            if not self._told_of_headers:
                self._told_of_headers = True
                log_event(logging.WARNING, "proxy_header_refused", peer=peer.address, reason=str(refusal))
            if secure:  # an answer in the clear would be noise there
                self._site.refused(peer, refusal.status, None)
                plain.abort()
            else:
                await turn_away(plain, self._site, self._limits, peer, refusal)
            return None
        except BaseException:
            plain.abort()
            raise
        if introduction is None:
            plain.abort()
        return introduction

    async def _begin_tls(self, plain: SocketTransport) -> TlsTransport | None:
        """TLS over the transport; None, and that aborted, if there is none to be had."""
        assert self.tls is not None
        tls = TlsTransport(plain, self.tls)
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

    def welcome(self, guest: "Guest") -> None:
        """Make the connection known to the server's stop, and to who sees to the end of its right."""
        self._connections.add(guest.connection)
        guest.connection.authorization.watch()

    def dismiss(self, guest: "Guest") -> None:
        """The connection is over."""
        guest.place.leave()
        self.expiry.remove(guest.connection.authorization)
        self._connections.remove(guest.connection)
        if not self._connections:
            self._gone.set()
        ending = guest.ending
        if ending.drop is not None:
            self.drops[ending.drop] += 1
        code = None if ending.disconnect is None else int(ending.disconnect.code)
        room = guest.connection.authorization.room
        log_event(
            logging.INFO, "LEAVE", **guest.connection.who.fields(), room=room, code=code, drop=ending.drop
        )

    def review(self, verifier: Verifier) -> int:
        """Judge all connections anew, see Authorization; how many end by that."""
        return sum(connection.authorization.review(verifier) for connection in self._connections)

    # For the server's stop

    def stop_reading(self) -> None:
        """No connection takes a further command."""
        for connection in self._connections:
            connection.stop_reading()

    async def end_all(self, why: Disconnect) -> None:
        """Ask all connections to end, those that are just coming in as well, and wait until they are gone."""
        self._farewell = self._farewell or why
        for connection in self._connections:
            connection.end.disconnect(why)
        while self._connections:
            if self._gone.is_set():
                self._gone = trio.Event()
            await self._gone.wait()
