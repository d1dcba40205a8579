"""Reception: from an accepted socket to a served connection, one task each.

1. There is one exception barrier per connection, here: whatever happens in one connection, it ends that
   connection, is logged once, and nothing else ends.
2. A place that was taken is given back however the connection ends.
"""

import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import trio

from chatroom.adapters.arrivals import Arrivals
from chatroom.adapters.engine import Engine
from chatroom.adapters.frontdoor import receive
from chatroom.adapters.tls import TlsTransport
from chatroom.adapters.transport import SocketTransport
from chatroom.assembly import Assembled, Assembly
from chatroom.lobby import Lobby
from chatroom.pure.forwarded import UNIX, Proxies, read_address
from chatroom.pure.tallies import Place
from chatroom.pure.tokens import Identity
from chatroom.site import ChatSite, Entrance
from chatroom.tasks.broker import Broker
from chatroom.tasks.connection import Connection
from chatroom.tasks.ending import Ending
from chatroom.tasks.timers import Timers
from chatroom.values.errors import Disconnect
from chatroom.values.http import Peer
from chatroom.values.journal import note
from chatroom.values.limits import Limits
from chatroom.values.statistics import Drop
from chatroom.values.traces import whereabouts

FAILED = Ending(drop=Drop.INTERNAL_ERROR)
"""How a connection has ended that says nothing else: by an exception."""
LONGEST_NAP = 0.5
"""Seconds. The time of day may be set: after so long it is looked at again for tokens that have expired."""
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

    __slots__ = ("_reception", "connection", "ending", "opening", "place", "who")

    def __init__(self, reception: "Reception", assembled: Assembled, place: Place) -> None:
        self._reception = reception
        self.connection = assembled.connection
        self.opening = assembled.opening
        self.who = assembled.who
        self.place = place
        self.ending = FAILED

    def __enter__(self) -> None:
        self._reception.welcome(self)

    def __exit__(self, *_: object) -> None:
        self._reception.dismiss(self)


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
        proxies: Proxies,
        wall_clock: Callable[[], float],
        arrivals: Arrivals | None = None,
    ) -> None:
        self._site = site
        self._limits = limits
        self.tls = tls
        self._proxies = proxies
        self._arrivals = arrivals
        self.expiry = Timers(wall_clock, longest=LONGEST_NAP)
        self._assembly = Assembly(
            broker=broker, engine=engine, limits=limits, renew=entrance.renew, watch=self.expiry.add
        )
        self._connections: set[Connection] = set()
        self._farewell: Disconnect | None = None
        self._gone = trio.Event()
        self.lobby = Lobby(limits.unauthenticated)
        self.keepalive = Timers()
        self.drops: Counter[Drop] = Counter()

    async def serve(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve one accepted socket to its end. The barrier: no exception but cancellation leaves."""
        try:
            guest = await self._receive(sock, secure=secure)
            if guest is not None:
                with guest:
                    guest.ending = await guest.connection.run(guest.opening)
        except* Exception as group:
            note(logging.ERROR, "connection_failed", **whereabouts(group))

    async def _receive(self, sock: socket.socket, *, secure: bool) -> Guest | None:
        """Who has been let in at the front door, if anybody."""
        peer = peer_of(sock)
        with self.lobby.visit():
            transport = await self._begin(sock, secure=secure)
            if transport is None:
                return None
            admitted = await receive(
                transport, self._site, self._limits, peer, secure=secure, proxies=self._proxies
            )
            if admitted is None:
                return None
            try:
                return Guest(self, self._assembly.make(transport, admitted), admitted.admission.place)
            except BaseException:
                transport.abort()
                admitted.admission.place.leave()
                raise
        return None

    async def _begin(self, sock: socket.socket, *, secure: bool) -> SocketTransport | TlsTransport | None:
        """The transport of a socket; None if there is none to be had."""
        plain = SocketTransport(sock, self._limits, self._arrivals)
        if not secure:
            return plain
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
        """Make the connection known to the server's stop, to the keepalive, and to who sees to its end."""
        if self._farewell is not None:
            guest.connection.end.disconnect(self._farewell)
        self._connections.add(guest.connection)
        self.keepalive.add(guest.connection)
        guest.connection.authorization.watch()

    def dismiss(self, guest: "Guest") -> None:
        """The connection is over."""
        guest.place.leave()
        self.keepalive.remove(guest.connection)
        self.expiry.remove(guest.connection.authorization)
        self._connections.remove(guest.connection)
        if not self._connections:
            self._gone.set()
        ending = guest.ending
        if ending.drop is not None:
            self.drops[ending.drop] += 1
        code = None if ending.disconnect is None else int(ending.disconnect.code)
        note(logging.INFO, "LEAVE", **guest.who.fields(), code=code, drop=ending.drop)

    def review(self, judge: Callable[[Identity], Identity | None]) -> int:
        """Judge all connections anew, see Authorization; how many end by that."""
        return sum(connection.authorization.review(judge) for connection in self._connections)

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
