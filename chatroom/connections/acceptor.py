"""The acceptor: from an accepted socket to a served connection, in one task for each.

Owns the exception barrier of a connection, the pending handshakes and the register of connections. Rules:

1. There is one exception barrier per connection, here. An exception in a connection ends that connection, is
   logged once, and ends nothing else.
2. A slot that was taken is released, however the connection ends.
3. The number of pending handshakes is bounded; see PendingHandshakes.

It doesn't know what a client may do, nor how a connection is served and closed.
"""

import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from types import TracebackType
from typing import Self

import trio

from chatroom.auth.tokens import Identity, Verifier
from chatroom.connections.api import Api
from chatroom.connections.connection import AcceptedHandshake, Connection, ServedConnection
from chatroom.connections.ending import Ending
from chatroom.connections.services import ClientInfo, ForbiddenCommands, Services
from chatroom.connections.stream import EventStream
from chatroom.connections.timers import Timers
from chatroom.core.connectionlimits import Slot
from chatroom.core.errors import Disconnect, Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.core.logevents import log_event, whereabouts
from chatroom.core.pace import RateLimiters
from chatroom.core.statistics import Drop
from chatroom.engines.engine import Engine
from chatroom.http.api import Caller, Route
from chatroom.http.frontdoor import Admitted, read_proxy_header, receive, send_refusal
from chatroom.http.handshake import SUBPROTOCOL
from chatroom.http.site import Admission, ChatSite, MetricsSite, OperatorSite
from chatroom.net.poller import ReadPoller
from chatroom.net.proxies import UNIX, Proxies, ProxyHeader, read_address
from chatroom.net.tls import TlsTransport
from chatroom.net.transport import SocketTransport, Transport
from chatroom.protocol.eventtext import EventTexts
from chatroom.rooms.broker import Broker
from chatroom.websocket.upgrade import answer_handshake

FAILED = Ending(drop=Drop.INTERNAL_ERROR)
"""The ending of a connection that an exception ended."""
EXPIRY_CHECK_SECONDS = 0.5
"""The time of day may be set, so expired tokens are looked for at least this often."""
MAX_PENDING_SCRAPES = 16
"""Sockets at a time at a port for metrics, or at the admin socket. Scrapers keep their sockets open."""
OLDEST_KEPT_SECONDS = 1.0
"""How long a handshake may be pending before another one may take its room."""
UNIX_PEER = Peer(UNIX, exempt=True)
ADMIN_PEER = Peer("admin", exempt=True)
"""Whoever comes to the admin socket."""


# Peers


def peer_of(sock: socket.socket) -> Peer:
    """The peer of an accepted socket."""
    if sock.family == socket.AF_UNIX:
        return UNIX_PEER
    try:
        return _peer_at(sock.getpeername()[0])
    except OSError:  # the peer has gone, and the first read will fail
        return Peer("gone")


@lru_cache(1024)
def _peer_at(address: str) -> Peer:
    """The same Peer object for all connections of an address."""
    found = read_address(address.partition("%")[0])
    assert found is not None  # the kernel says so
    return Peer(str(found), exempt=found.is_loopback)


# Pending handshakes


class PendingHandshakes:
    """Sockets that have been accepted and not yet admitted, at most `size`.

    1. While there are `size`, no socket is accepted. Room isn't reserved: when several listeners wait for it,
       each of them may accept one socket.
    2. While a listener waits, the oldest handshake is dropped as soon as it has been pending for
       OLDEST_KEPT_SECONDS.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._handshakes: OrderedDict[trio.CancelScope, float] = OrderedDict()  # the oldest first
        self._room_made = trio.Event()
        self.paused: set[trio.CancelScope] = set()  # whose requests are carried out

    def __len__(self) -> int:
        return len(self._handshakes)

    def add(self, handshake: trio.CancelScope) -> None:
        """Count a handshake, and cancel it when another one needs its room."""
        self._handshakes[handshake] = trio.current_time()

    def discard(self, handshake: trio.CancelScope) -> None:
        """Count the handshake no more."""
        self._handshakes.pop(handshake, None)
        self.paused.discard(handshake)
        self._room_made.set()

    def pause(self, handshake: trio.CancelScope) -> None:
        """Its peer is known, and has asked for something: count it no more until `resume`."""
        self.discard(handshake)
        self.paused.add(handshake)

    def resume(self, handshake: trio.CancelScope) -> None:
        """The peer has its answer: count the handshake again. Nothing happens to one that isn't paused."""
        if handshake in self.paused:
            self.paused.remove(handshake)
            self.add(handshake)
            self._room_made.set()

    async def wait_empty(self) -> None:
        """Wait until no handshake is pending."""
        while self._handshakes or self.paused:
            if self._room_made.is_set():
                self._room_made = trio.Event()
            await self._room_made.wait()

    async def wait_answered(self) -> None:
        """Wait until no request is carried out."""
        while self.paused:
            if self._room_made.is_set():
                self._room_made = trio.Event()
            await self._room_made.wait()

    async def wait_not_full(self) -> None:
        """Wait until one more handshake may be pending."""
        while len(self._handshakes) >= self._size:
            oldest, since = next(iter(self._handshakes.items()))
            if self._room_made.is_set():
                self._room_made = trio.Event()  # one for all that wait: there may be several listeners
            with trio.move_on_at(since + OLDEST_KEPT_SECONDS) as waiting:
                await self._room_made.wait()
            if waiting.cancelled_caught and len(self) >= self._size and oldest in self._handshakes:
                oldest.cancel()
                del self._handshakes[oldest]


class PendingHandshake:
    """A context: one handshake among the pending ones. It is cancelled if another one needs its room."""

    __slots__ = ("_pending", "_scope")

    def __init__(self, pending: PendingHandshakes) -> None:
        self._pending = pending
        self._scope = trio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._pending.add(self._scope)
        return self

    def pause(self) -> None:
        """The peer is no stranger for now: count it no more, and don't cancel it."""
        self._pending.pause(self._scope)

    def resume(self) -> None:
        """Count it again, as one that has just come."""
        self._pending.resume(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._pending.discard(self._scope)
        return self._scope.__exit__(kind, error, traceback)


class Conversation:
    """The requests about rooms of one pending handshake; see frontdoor.Api."""

    __slots__ = ("_api", "_pending", "_site", "_slot", "_visits")

    def __init__(self, site: ChatSite | OperatorSite, api: Api, pending: PendingHandshake) -> None:
        self._site = site
        self._api = api
        self._pending = pending
        self._visits = api.visits()
        self._slot: Slot | None = None

    def begin(self, request: Request, asked: Route) -> Caller[Identity]:
        """See frontdoor.Api."""
        caller = self._site.vet_call(request, asked)
        self._slot = self._site.take_slot(caller)
        self._pending.pause()
        return caller

    async def carry_out(self, caller: Caller[Identity], body: bytes) -> Response | Admission:
        """See frontdoor.Api."""
        return await self._api.carry_out(caller, body, self._visits)

    def done(self) -> None:
        """See frontdoor.Api."""
        if self._slot is not None:
            self._slot.release()
            self._slot = None
            self._pending.resume()

    def close(self) -> None:
        """See frontdoor.Api."""
        self.done()
        self._visits.end()


# Connections


class RegisteredConnection:
    """A context: an admitted connection, registered with the acceptor until it ends."""

    __slots__ = ("_acceptor", "connection", "ending", "slot")

    def __init__(self, acceptor: "Acceptor", connection: ServedConnection, slot: Slot) -> None:
        self._acceptor = acceptor
        self.connection = connection
        self.slot = slot
        self.ending = FAILED

    def __enter__(self) -> None:
        self._acceptor.register(self)

    def __exit__(self, *_: object) -> None:
        self._acceptor.unregister(self)


class Acceptor:
    """Serves accepted sockets, and holds the register of connections."""

    def __init__(
        self,
        *,
        site: ChatSite,
        renew: Callable[[Peer, str, str], Identity | None],
        verifier: Verifier,
        broker: Broker,
        engine: Engine,
        limits: Limits,
        tls: ssl.SSLContext | None,
        proxies: Proxies,
        proxy_protocol: bool = False,
        hide_rooms: bool = False,
        wall_clock: Callable[[], float],
        run: str,
        poller: ReadPoller,
    ) -> None:
        self._site = site
        self._verifier = verifier
        self._metrics_site = MetricsSite(site)
        self._operator_site = OperatorSite(site)
        self._limits = limits
        self.tls = tls
        self._proxies = proxies
        self._proxy_protocol = proxy_protocol
        self._told_of_headers = False
        self._poller = poller
        self.expiry = Timers(wall_clock, longest=EXPIRY_CHECK_SECONDS)
        self.keepalive = Timers()
        self.forbidden = ForbiddenCommands(self.keepalive.add)
        self._services = Services(
            broker=broker,
            engine=engine,
            limits=limits,
            pace=RateLimiters(limits.message_rate, limits.message_burst),
            requests=RateLimiters(
                limits.command_rate if limits.message_rate else 0, max(1, int(limits.command_rate))
            ),
            event_texts=EventTexts(),
            keepalive=self.keepalive,
            expiry=self.expiry,
            renew=renew,
            moderates=self.moderates,
            hide_rooms=hide_rooms,
            forbidden=self.forbidden,
        )
        self._api = Api(self._services, site.admit_stream)
        self._run = run
        self._numbers = count(1)
        self._connections: set[ServedConnection] = set()
        self._stopping: Disconnect | None = None
        self._gone = trio.Event()
        self.pending = PendingHandshakes(limits.unauthenticated)
        self.pending_scrapes = PendingHandshakes(MAX_PENDING_SCRAPES)
        self.pending_operators = PendingHandshakes(MAX_PENDING_SCRAPES)
        self.drops: Counter[Drop] = Counter()

    async def serve(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve one accepted socket to its end. No exception but cancellation leaves this barrier."""
        try:
            registered = await self._receive(sock, secure=secure)
            if registered is not None:
                with registered:
                    registered.ending = await registered.connection.run(self._stopping)
        except* Exception as group:
            log_event(logging.ERROR, "connection_failed", **whereabouts(group))

    async def serve_metrics(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve a socket of a port for metrics. Pending handshakes at the other ports don't hold it up."""
        try:
            with PendingHandshake(self.pending_scrapes):
                transport = SocketTransport(sock, self._limits)
                await receive(transport, self._metrics_site, self._limits, peer_of(sock), secure=secure)
        except* Exception as group:
            log_event(logging.ERROR, "connection_failed", **whereabouts(group))

    async def serve_operator(self, sock: socket.socket, *, secure: bool) -> None:
        """Serve a socket of the admin socket. Pending handshakes elsewhere don't hold it up."""
        try:
            with PendingHandshake(self.pending_operators) as pending:
                transport = SocketTransport(sock, self._limits)
                conversation = Conversation(self._operator_site, self._api, pending)
                await receive(
                    transport, self._operator_site, self._limits, ADMIN_PEER, secure=secure, api=conversation
                )
        except* Exception as group:
            log_event(logging.ERROR, "connection_failed", **whereabouts(group))

    async def _receive(self, sock: socket.socket, *, secure: bool) -> RegisteredConnection | None:
        """The connection of an admitted client; None if no client was admitted."""
        peer = peer_of(sock)
        with PendingHandshake(self.pending) as pending:
            plain = SocketTransport(sock, self._limits, self._poller)
            proxied = self._proxy_protocol and self._proxies.trusts(peer)
            header = await self._read_proxy_header(plain, peer, secure=secure) if proxied else ProxyHeader()
            if header is None:
                return None
            transport = await self._begin_tls(plain) if secure else plain
            if transport is None:
                return None
            admitted = await receive(
                transport,
                self._site,
                self._limits,
                peer if header.address is None else Peer(header.address),
                secure=secure or header.secure,
                proxies=self._proxies,
                named_by_proxy=header.address is not None,
                api=Conversation(self._site, self._api, pending),
            )
            if admitted is None:
                return None
            try:
                return await self._begin(transport, admitted)
            except BaseException:
                transport.abort()
                admitted.admission.slot.release()
                raise
        return None

    async def _begin(self, transport: Transport, admitted: Admitted[Admission]) -> RegisteredConnection:
        """The connection of an admitted client. Nothing of it runs yet."""
        admission, answer = admitted.admission, admitted.head
        if admitted.upgrade is not None:
            answer = await answer_handshake(admitted.head, SUBPROTOCOL if admission.subprotocol else None)
        client = ClientInfo(f"{self._run}-{next(self._numbers)}", admission.username, admission.peer)
        join_request = admission.join_request
        handshake = AcceptedHandshake(
            join_request.room, answer, admitted.trailing, join_request.since, join_request.epoch
        )
        kind = EventStream if admitted.upgrade is None else Connection
        connection = kind(transport, client, admission.identity, handshake, self._services)
        return RegisteredConnection(self, connection, admission.slot)

    async def _read_proxy_header(
        self, plain: SocketTransport, peer: Peer, *, secure: bool
    ) -> ProxyHeader | None:
        """The client that a trusted proxy names before TLS begins.

        None, with the connection closed, if the proxy sends no header.
        """
        try:
            header = await read_proxy_header(plain, self._limits)
        except Refusal as refusal:
            if not self._told_of_headers:
                self._told_of_headers = True
                log_event(logging.WARNING, "proxy_header_refused", peer=peer.address, reason=str(refusal))
            if secure:  # the client awaits TLS, and an answer in the clear would be noise
                self._site.refused(peer, refusal.status, None)
                plain.abort()
            else:
                await send_refusal(plain, self._site, self._limits, peer, refusal)
            return None
        except BaseException:
            plain.abort()
            raise
        if header is None:
            plain.abort()
        return header

    async def _begin_tls(self, plain: SocketTransport) -> TlsTransport | None:
        """TLS over the transport. None, with the transport aborted, if the TLS handshake fails."""
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

    def register(self, registered: RegisteredConnection) -> None:
        """Have the connection ended by the server's stop, and by the expiry of its token."""
        self._connections.add(registered.connection)
        registered.connection.authorization.watch()

    def unregister(self, registered: RegisteredConnection) -> None:
        """The connection is over: release its slot, count its drop and log its end."""
        registered.slot.release()
        self.expiry.remove(registered.connection.authorization)
        self._connections.remove(registered.connection)
        if not self._connections:
            self._gone.set()
        ending = registered.ending
        if ending.drop is not None:
            self.drops[ending.drop] += 1
        registered.connection.log_end(ending)

    def review(self, verifier: Verifier) -> int:
        """Check the rights of all connections again, see Authorization. Returns how many end by that."""
        return sum(connection.authorization.review(verifier) for connection in self._connections)

    def moderates(self, room: str, username: str) -> bool:
        """Whether a connection of that name may moderate the room, or a token that is bound to the name."""
        return self._verifier.moderates(room, username) or any(
            connection.client.username == username and connection.authorization.identity.rights.can(room, "m")
            for connection in self._connections
        )

    # For the server's stop

    def stop_reading(self) -> None:
        """Have no connection take a further command."""
        for connection in self._connections:
            connection.stop_reading()

    async def end_all(self, why: Disconnect) -> None:
        """Ask all connections to end, also those that are still pending. Wait until they are gone."""
        self._stopping = self._stopping or why
        for connection in self._connections:
            connection.end.disconnect(why)
        while self._connections:
            if self._gone.is_set():
                self._gone = trio.Event()
            await self._gone.wait()
        await self.pending.wait_answered()
        await self.pending_operators.wait_answered()
