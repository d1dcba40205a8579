"""The server: what it is made of, how it starts, and how it stops.

    root nursery
    ├─ engine
    ├─ broker
    ├─ read poller, keepalive and expiry of tokens, for all connections
    ├─ keys of web tokens, if they come from an address
    ├─ reload on SIGHUP
    ├─ watchdog of a service manager, if the manager wants one
    └─ connections nursery: an accepting task per listener, one task per socket

Owns the wiring: which listeners and which engine the settings choose, the tree of tasks, and the steps of the
stop. Rules:

1. The server serves only when everything could be opened. Otherwise it raises StartError before it prints a
   line.
2. A stop refuses handshakes and takes no further command. What it has taken is committed and shown. Then it
   tells all clients (1012), and closes the engine and the listeners. Each step has a deadline. If something
   that was taken isn't committed at the end, though the engine would have kept it, the exit code says so.
3. A fault in any part but a connection ends the process, after all clients were told (1011).
4. Everybody knows the development tokens. The server refuses to start where others could use them, unless the
   operator insists.

It doesn't know how a connection works, nor how messages are kept and delivered.
"""

import errno
import logging
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from ssl import SSLContext
from typing import TYPE_CHECKING, Protocol

import trio

from chatroom import __version__
from chatroom.auth.tokens import DEVELOPMENT_TOKENS, Verifiers
from chatroom.config.parsers import MAX_NODE
from chatroom.config.settings import NO_DATABASE, NO_HOST, Settings, complete_address
from chatroom.connections.acceptor import Acceptor, PendingHandshakes
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import CloseCode, Disconnect, StartError
from chatroom.core.http import Response
from chatroom.core.logevents import log_event, whereabouts
from chatroom.core.statistics import Statistics, Unready
from chatroom.core.stores import StoreAddress
from chatroom.credentials import Reload, key_feed_for, read_credentials
from chatroom.engines.engine import Engine
from chatroom.engines.memory import MemoryEngine
from chatroom.engines.sqlite.engine import SqliteEngine
from chatroom.http.page import Page
from chatroom.http.site import Admissions, ChatSite
from chatroom.metrics import CONTENT_TYPE, Metrics
from chatroom.net.listeners import (
    Address,
    Listener,
    ListenPlan,
    drop_new_connections,
    find_addresses,
    given_listener,
    open_listeners,
    stop_dropping,
)
from chatroom.net.poller import make_poller
from chatroom.net.proxies import Proxies
from chatroom.process import Stop, check_startup, stopping, tune_collector
from chatroom.rooms.broker import Broker
from chatroom.rooms.fanout import Fanout
from chatroom.rooms.rooms import Rooms
from chatroom.system.files import load_page
from chatroom.system.stdio import print_out
from chatroom.system.systemd import NO_MANAGER, Notifier, given_sockets

if TYPE_CHECKING:
    from chatroom.auth.keyfeed import KeyFeed


# What the settings choose


class Endpoint(Protocol):
    """Where clients may connect: an address, or a listener on a socket that the server was given."""

    @property
    def local(self) -> bool:
        """Only this machine can reach it."""

    def shown(self) -> str:
        """Its name, as an operator knows it."""


def listen(settings: Settings, given: Sequence[Listener], *, secure: bool) -> list[Listener]:
    """Open the listeners of the settings, beside the `given` ones. Raises StartError.

    Given listeners replace those of `--host` and `--port`; a given one for metrics replaces `--metrics-…`.
    Mistakes that show without opening anything are refused first.
    """
    public = [listener for listener in given if not listener.metrics]
    hosts = () if public or settings.hosts == (NO_HOST,) else settings.hosts
    if not (public or hosts or settings.unix):
        raise StartError("--host none needs --unix beside it: else there is nothing to listen on")
    addresses = find_addresses(hosts)
    check_development_tokens(settings, [*public, *addresses])
    metrics: list[Address] = []
    if settings.metrics_port is not None and len(public) == len(given):
        metrics = find_addresses(settings.metrics_hosts or ("localhost",), "--metrics-host")
        _check_ports(settings, addresses, metrics)
    plan = ListenPlan(
        addresses,
        settings.port,
        settings.unix,
        settings.unix_mode,
        metrics,
        settings.metrics_port or 0,
        shared=settings.reuse_port,
        admin=settings.admin_socket,
    )
    return [*given, *open_listeners(plan, secure=secure)]


def _check_ports(settings: Settings, addresses: Iterable[Address], metrics: Iterable[Address]) -> None:
    if settings.port != settings.metrics_port or not settings.port:
        return
    if any(one.covers(other) or other.covers(one) for one, other in product(addresses, metrics)):
        raise StartError(f"--metrics-port {settings.metrics_port} is --port already: choose another one")


def check_development_tokens(settings: Settings, endpoints: Iterable[Endpoint]) -> None:
    """Raises StartError if others could come in by the development tokens (rule 4)."""
    if settings.insecure_dev_tokens or not settings.takes_development_tokens:
        return
    for endpoint in endpoints:
        if not endpoint.local:
            raise StartError(
                f"anyone could come in at {endpoint.shown()} with a development token: give --tokens or "
                "a --jwt-… option, or a loopback --host, or --insecure-dev-tokens if that is meant"
            )


def engine_for(settings: Settings, observe_round_trip: Callable[[float], None]) -> Engine:
    """The engine that the settings choose. Nothing is opened yet.

    `observe_round_trip` is called with the seconds of each round trip to a store.
    """

    def new_epoch() -> str:
        return secrets.token_urlsafe(6)

    if settings.redis is not None:
        return _shared_engine(settings.redis, settings, new_epoch, observe_round_trip)
    if settings.db == NO_DATABASE:
        return MemoryEngine(new_epoch)
    return SqliteEngine(settings.db, new_epoch, renew_epoch=settings.new_epoch, retain=settings.retain)


def _shared_engine(
    address: StoreAddress,
    settings: Settings,
    new_epoch: Callable[[], str],
    observe: Callable[[float], None],
) -> Engine:
    """The engine on a store that several nodes share."""
    from chatroom.engines.redis.engine import RedisEngine  # noqa: PLC0415  (not needed by most)

    return RedisEngine(
        complete_address(address, settings.redis_password_file, settings.redis_ca),
        new_epoch,
        prefix=settings.redis_prefix,
        node=settings.node or default_node(socket.gethostname(), os.getpid()),
        incarnation=secrets.token_hex(4),
        version=__version__,
        retain=settings.retain,
        renew_epoch=settings.new_epoch,
        observe=observe,
    )


def default_node(host: str, pid: int) -> str:
    """The default name of a node, from its machine and its process."""
    end = f"-{pid}"
    visible = re.sub(r"[^!-~]", "-", host)
    return visible[: MAX_NODE - len(end)] + end


# The server

RING_BYTES = 32 * 1024 * 1024
SETTLE_SECONDS = 1.5
"""How long a stop waits until what was taken is committed and shown."""
ACCEPTED_TO_PENDING_SECONDS = 0.05
"""More than a socket takes from being accepted to being counted as a pending handshake."""
LATE_HANDSHAKE_SECONDS = 1.0
"""How long a handshake may take that began before a stop, at a socket on which others go on to serve."""
HALF_OPEN_SECONDS = 0.3
"""How long a TCP handshake may take that has begun when a shared port is left. Less than RESEND_SECONDS."""
CRASH_SECONDS = 2.0
"""How long the server may take to tell all clients after a fault of ours."""
ACCEPT_PAUSE = 0.5
"""The pause before the next try when accepting fails, perhaps for lack of descriptors."""
_CLIENTS_OWN = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
RESTARTING = Disconnect(CloseCode.RESTART, "server is restarting")
BROKEN = Disconnect(CloseCode.INTERNAL_ERROR, "internal error")


async def serve(settings: Settings, asked_to_stop: Callable[[], bool] = lambda: False) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. Raises StartError if it can't start.

    `asked_to_stop` tells whether a signal came earlier.
    """
    # A hangup counts from here on: the files may change after they were read.
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        feed = key_feed_for(settings)
        credentials = read_credentials(settings, feed)
        secure = credentials.tls is not None
        given = [given_listener(sock, name, secure=secure) for sock, name in given_sockets(os.environ)]
        listeners = listen(settings, given, secure=secure)
        try:
            async with stopping(asked_to_stop) as stop:
                await trio.lowlevel.checkpoint()
                if feed is not None:
                    await feed.load()
                verifiers, notifier = Verifiers(credentials.verifiers), Notifier(os.environ)
                server = Server(settings, verifiers, credentials.tls, feed, notifier)
                return await server.run(listeners, hangups, stop)
        finally:
            for listener in listeners:
                listener.close()
    log_event(logging.INFO, "stop")
    return 0


class Server:
    """One node: its parts, its tasks and its stop."""

    def __init__(
        self,
        settings: Settings,
        verifiers: Verifiers,
        tls: SSLContext | None,
        feed: "KeyFeed | None" = None,
        notifier: Notifier = NO_MANAGER,
    ) -> None:
        limits = settings.limits
        self._notifier = notifier
        self._left_to_others: list[trio.CancelScope] = []
        self._settings = settings
        self._unbound, self._moderators = verifiers.unbound, verifiers.moderators
        self._feed = feed
        self._settled = True
        self._run = secrets.token_hex(4)
        self._metrics = Metrics(self.statistics)
        self._engine = engine_for(settings, self._metrics.observe_round_trip)
        self._rooms = Rooms(self._engine, history=settings.history, ring_bytes=RING_BYTES, limits=limits)
        self._broker = Broker(
            self._engine,
            self._rooms,
            fanout=Fanout(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            observe_commit=self._metrics.observe_commit,
        )
        self._connection_limits = ConnectionLimits(limits)
        admissions = Admissions(verifiers, self._connection_limits, settings.origins, trio.current_time)
        self._page = Page(
            load_page(),
            development_token=DEVELOPMENT_TOKENS[-1] if settings.takes_development_tokens else None,
        )
        self._site = self._make_site(admissions)
        self._poller = make_poller()
        self._acceptor = Acceptor(
            site=self._site,
            renew=admissions.renew,
            verifier=verifiers,
            broker=self._broker,
            engine=self._engine,
            limits=limits,
            tls=tls,
            proxies=Proxies(settings.trusted_proxies or frozenset()),
            proxy_protocol=settings.proxy_protocol,
            hide_rooms=settings.hide_rooms,
            wall_clock=time.time,
            run=self._run,
            poller=self._poller,
        )
        self._reload = Reload(settings, verifiers, self._acceptor, feed, notifier)

    def _make_site(self, admissions: Admissions) -> ChatSite:
        return ChatSite(
            admissions=admissions,
            page=self._page.answer,
            metrics=lambda: Response(200, self._metrics.render(), CONTENT_TYPE),
            troubles=lambda: (*self._broker.troubles(), *self._engine.troubles()),
            clock=trio.current_time,
            watch=self._call_back,
            ban=self._broker.ban,
        )

    def _call_back(self, site: ChatSite) -> None:
        self._acceptor.keepalive.add(site)

    async def run(self, listeners: Sequence[Listener], hangups: AsyncIterator[int], stop: Stop) -> int:
        """Serve until a stop is asked for. Returns the exit code."""
        tune_collector()
        self._site.metrics_elsewhere = any(listener.metrics for listener in listeners)
        async with trio.open_nursery() as root:
            await root.start(self._serve_engine)
            for part, run in self._background_tasks(hangups):
                root.start_soon(self._run_fatal, part, run, name=run)
            async with trio.open_nursery() as connections:
                for listener in listeners:
                    accept = partial(self._accept, listener, connections)
                    connections.start_soon(self._run_fatal, "listener", accept, name=self._accept)
                async with self._fatal("server"):
                    self._announce(listeners)
                    stop.begin()
                    await stop.asked.wait()
                    await self._stop(listeners)
                connections.cancel_scope.cancel()
            root.cancel_scope.cancel()
        self._site.log_refusals()
        self._acceptor.forbidden.log_sums()
        if not self._settled:
            log_event(logging.ERROR, "not_settled")
            return 1
        log_event(logging.INFO, "stop")
        return 0

    def _announce(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            what = "Metrics" if listener.metrics else "Administration" if listener.admin else "Listening"
            print_out(f"{what} on {listener.name}\n")
        names = " ".join(each.name for each in listeners)
        self._notifier.ready(f"Listening on {names}")
        store = self._settings.redis and self._settings.redis.shown
        log_event(logging.INFO, "start", version=__version__, run=self._run, listeners=names, store=store)
        check_startup(self._settings, self._unbound, self._moderators)
        self._metrics.render()  # imports modules, while there are descriptors left to open their files

    async def _serve_engine(self, task_status: trio.TaskStatus[None]) -> None:
        async with self._fatal("engine"):
            await self._engine.serve(self._broker, task_status=task_status)

    def _background_tasks(
        self, hangups: AsyncIterator[int]
    ) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """The tasks beside the engine and the connections, each with its name in the log's `part_failed`."""
        yield "broker", self._broker.run
        yield "arrivals", self._poller.run
        yield "keepalive", self._acceptor.keepalive.run
        yield "expiry", self._acceptor.expiry.run
        yield "reload", partial(self._reload.run, hangups)
        if self._feed is not None:
            yield "keys", self._feed.run
        yield "watchdog", self._notifier.watch

    async def _run_fatal(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        async with self._fatal(part):
            await run()

    @asynccontextmanager
    async def _fatal(self, part: str) -> AsyncIterator[None]:
        """Rule 3."""
        try:
            yield
        except StartError:
            raise
        except Exception as error:
            log_event(logging.CRITICAL, "part_failed", part=part, **whereabouts(error))
            self._site.draining = True
            with trio.move_on_after(CRASH_SECONDS):
                await self._acceptor.end_all(BROKEN)
            raise

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        """Accept sockets while handshakes may be pending, until cancelled or until a stop leaves the port.

        A client that comes to a given socket during the stop isn't refused: the next server accepts it. At a
        port that others share, this process serves the clients in its queue; further ones go to the others.
        """
        with trio.CancelScope() as scope:
            if listener.given or listener.shared:
                self._left_to_others.append(scope)
            await self._accept_from(listener, connections)
        if listener.shared:
            with trio.move_on_after(LATE_HANDSHAKE_SECONDS):
                await self._accept_rest(listener, connections)
            listener.close()

    async def _accept_rest(self, listener: Listener, connections: trio.Nursery) -> None:
        """Accept the sockets that wait already."""
        while True:
            await self._acceptor.pending.wait_not_full()
            try:
                sock, _ = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError:
                continue  # the client has gone
            self._start(sock, listener, connections)
            await trio.lowlevel.checkpoint()

    async def _accept_from(self, listener: Listener, connections: trio.Nursery) -> None:
        accepting = trio.socket.from_stdlib_socket(listener.socket)
        pending = self._pending_at(listener)
        while True:
            await pending.wait_not_full()
            try:
                accepted, _ = await accepting.accept()
            except OSError as error:
                # An error of one client concerns no other. A lack of descriptors passes.
                if error.errno not in _CLIENTS_OWN:
                    log_event(logging.WARNING, "accept_failed", errno=error.errno, reason=error.strerror)
                    await trio.sleep(ACCEPT_PAUSE)
                continue
            self._start(socket.socket(fileno=accepted.detach()), listener, connections)

    def _pending_at(self, listener: Listener) -> PendingHandshakes:
        if listener.metrics:
            return self._acceptor.pending_scrapes
        return self._acceptor.pending_operators if listener.admin else self._acceptor.pending

    def _start(self, sock: socket.socket, listener: Listener, connections: trio.Nursery) -> None:
        if listener.shared:
            stop_dropping(sock)
        serve = self._acceptor.serve
        if listener.metrics or listener.admin:
            serve = self._acceptor.serve_metrics if listener.metrics else self._acceptor.serve_operator
        connections.start_soon(partial(serve, sock, secure=listener.secure), name="connection")

    async def _stop(self, listeners: Sequence[Listener]) -> None:
        """Rule 2."""
        log_event(logging.INFO, "draining")
        self._notifier.stopping()
        await self._leave_port(listeners)
        for accepting in self._left_to_others:
            accepting.cancel()
        if self._left_to_others:
            await self._finish_handshakes()
        self._site.draining = True
        self._acceptor.stop_reading()
        with trio.move_on_after(SETTLE_SECONDS):
            await self._broker.wait_settled()
        self._rooms.fall_silent()
        with trio.move_on_after(self._settings.drain):
            await self._acceptor.end_all(RESTARTING)
        self._settled = not (self._engine.durable and self._broker.uncommitted)

    def _unready(self) -> Iterator[Unready]:
        if self._site.draining:
            yield Unready.DRAINING
        if self._broker.troubles():
            yield Unready.COMMIT_WAITING
        if self._engine.troubles():
            yield Unready.STORE

    async def _leave_port(self, listeners: Sequence[Listener]) -> None:
        """Send new clients of a shared port to the others. TCP handshakes that have begun may finish."""
        shared = [listener for listener in listeners if listener.shared]
        for listener in shared:
            drop_new_connections(listener.socket)
        if shared:
            await trio.sleep(HALF_OPEN_SECONDS)

    async def _finish_handshakes(self) -> None:
        """Finish the handshakes that came to a socket on which others go on to serve, instead of refusing."""
        await trio.sleep(ACCEPTED_TO_PENDING_SECONDS)
        with trio.move_on_after(LATE_HANDSHAKE_SECONDS):
            await self._acceptor.pending.wait_empty()

    def statistics(self) -> Statistics:
        """The numbers of all parts at this moment."""
        database_bytes, wal_bytes = self._engine.sizes()
        return Statistics(
            connections=self._connection_limits.statistics().connections,
            handshakes=len(self._acceptor.pending),
            rooms=len(self._rooms),
            presences=self._rooms.presences,
            lagging_members=self._rooms.lagging,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            database_bytes=database_bytes,
            wal_bytes=wal_bytes,
            messages_total=self._rooms.messages,
            deliveries_total=self._broker.fanout.deliveries,
            unavailable_total=self._rooms.unavailable,
            reloads_total=self._reload.done,
            failed_reloads_total=self._reload.failed,
            last_reload_successful=self._reload.successful,
            keys_age=None if self._feed is None else self._feed.age,
            store=self._engine.statistics,
            unready=frozenset(self._unready()),
            drops=dict(self._acceptor.drops),
            refusals=dict(self._site.refusals),
        )
