"""The server: what it is made of, how it starts, and how it stops.

    root nursery
    ├─ engine
    ├─ broker (with the committer and the openers of rooms)
    ├─ arrivals, keepalive and expiring tokens of all connections
    ├─ keys from an address, where they come from one
    ├─ reload on SIGHUP
    ├─ an accepting task per listener
    ├─ signals
    └─ connections nursery: one task per socket

1. It serves only when everything could be opened; what can't is a StartError before a line is printed.
2. Stopping: handshakes are refused, readers stop at a command boundary, what was taken is committed and
   shown, everyone is told (1012), then the engine and the listeners close. Each step has a deadline; if what
   was taken could not be committed within its own, the exit code says that something was wrong.
3. A fault in the broker or the engine ends the process, after everyone has been told (1011).
"""

import errno
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING

import trio

from chatroom import __version__
from chatroom.adapters.arrivals import make_arrivals
from chatroom.adapters.standard import say
from chatroom.advice import advise
from chatroom.credentials import key_feed_for, read_credentials
from chatroom.listeners import Listener, open_listeners
from chatroom.metrics import CONTENT_TYPE, Metrics
from chatroom.page import load_page
from chatroom.parts import check_strangers, engine_for
from chatroom.process import end_at_once, tune_collector
from chatroom.pure.csp import policy
from chatroom.pure.forwarded import Proxies
from chatroom.pure.tallies import Tallies
from chatroom.pure.tokens import Verifiers
from chatroom.reception import Reception
from chatroom.reload import Reload
from chatroom.settings import Settings
from chatroom.site import ChatSite, Enquiry, Entrance
from chatroom.tasks.broker import Broker
from chatroom.tasks.fanout import Fanout
from chatroom.tasks.rooms import Rooms
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, StartError
from chatroom.values.http import Response
from chatroom.values.journal import note
from chatroom.values.statistics import Statistics
from chatroom.values.traces import whereabouts

if TYPE_CHECKING:
    from chatroom.adapters.keyfeed import KeyFeed

RING_BYTES = 32 * 1024 * 1024
SETTLE_SECONDS = 1.5
"""How long a stop waits for what was taken to be committed and shown."""
CRASH_SECONDS = 2.0
"""How long the end after a fault of ours may take to tell everyone."""
ACCEPT_PAUSE = 0.5
"""How long to wait before the next try when accepting fails, for lack of descriptors perhaps."""
_CLIENTS_OWN = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
RESTARTING = Disconnect(CloseCode.RESTART, "server is restarting")
BROKEN = Disconnect(CloseCode.INTERNAL_ERROR, "internal error")


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises StartError before it has begun."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # neither before the next line nor at the end is it deadly
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:  # already: what is read now may be old soon
        feed = key_feed_for(settings)
        credentials = read_credentials(settings, feed)
        secure = credentials.tls is not None
        listeners = open_listeners(settings.hosts, settings.port, settings.unix, secure=secure)
        try:
            check_strangers(settings, listeners)
            if feed is not None:
                await feed.load()
            server = Server(settings, Verifiers(credentials.verifiers), credentials.tls, feed)
            return await server.run(listeners, hangups)
        finally:
            for listener in listeners:
                listener.close()


class Server:
    """One node, from its parts to its stop."""

    def __init__(
        self,
        settings: Settings,
        verifiers: Verifiers,
        tls: SSLContext | None,
        feed: "KeyFeed | None" = None,
    ) -> None:
        limits = settings.limits
        self._settings = settings
        self._unbound = verifiers.unbound
        self._feed = feed
        self._settled = True
        self._engine = engine_for(settings)
        self._metrics = Metrics(self.statistics)
        self._rooms = Rooms(self._engine, history=settings.history, ring_bytes=RING_BYTES)
        self._broker = Broker(
            self._engine,
            self._rooms,
            fanout=Fanout(),
            now_ms=lambda: time.time_ns() // 1_000_000,
            observe_commit=self._metrics.observe_commit,
        )
        self._tallies = Tallies(limits)
        door = (verifiers, self._tallies, settings.origins, trio.current_time)
        entrance = Entrance(*door)
        self._site = self._make_site(entrance, Enquiry(*door))
        self._arrivals = make_arrivals()
        self._reception = Reception(
            site=self._site,
            entrance=entrance,
            broker=self._broker,
            engine=self._engine,
            limits=limits,
            tls=tls,
            proxies=Proxies(settings.trusted_proxies or frozenset()),
            wall_clock=time.time,
            arrivals=self._arrivals,
        )
        self._reload = Reload(settings, verifiers, self._reception, feed)

    def _make_site(self, entrance: Entrance, enquiry: Enquiry) -> ChatSite:
        return ChatSite(
            entrance=entrance,
            enquiry=enquiry,
            page=_page(),
            metrics=lambda: Response(200, self._metrics.render(), CONTENT_TYPE),
            troubles=lambda: (*self._broker.troubles(), *self._engine.troubles()),
            clock=trio.current_time,
        )

    async def run(self, listeners: Sequence[Listener], hangups: AsyncIterator[int]) -> int:
        """Serve until told to stop."""
        tune_collector()
        async with trio.open_nursery() as root:
            await root.start(self._serve_engine)
            root.start_soon(self._run_broker)
            if self._arrivals is not None:
                root.start_soon(self._arrivals.run)
            root.start_soon(self._reception.keepalive.run)
            root.start_soon(self._reception.expiry.run)
            root.start_soon(self._reload.run, hangups)
            if self._feed is not None:
                root.start_soon(self._feed.run)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as connections:
                    for listener in listeners:
                        connections.start_soon(self._accept, listener, connections)
                    self._announce(listeners)
                    await anext(signals)
                    root.start_soon(end_at_once, signals)
                    await self._stop()
                    connections.cancel_scope.cancel()
            root.cancel_scope.cancel()
        if not self._settled:
            note(logging.ERROR, "not_settled")
            return 1
        note(logging.INFO, "stop")
        return 0

    def _announce(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            say(f"Listening on {listener.name}\n")
        note(logging.INFO, "start", version=__version__, listeners=" ".join(each.name for each in listeners))
        advise(self._settings, self._unbound)
        self._metrics.render()  # loads what it needs, while there are descriptors to open files with

    async def _serve_engine(self, task_status: trio.TaskStatus[None]) -> None:
        async with self._fatal("engine"):
            await self._engine.serve(task_status=task_status)

    async def _run_broker(self) -> None:
        async with self._fatal("broker"):
            await self._broker.run()

    @asynccontextmanager
    async def _fatal(self, part: str) -> AsyncIterator[None]:
        """Rule 3."""
        try:
            yield
        except StartError:
            raise
        except Exception as error:
            note(logging.CRITICAL, "part_failed", part=part, **whereabouts(error))
            self._site.draining = True
            with trio.move_on_after(CRASH_SECONDS):
                await self._reception.end_all(BROKEN)
            raise

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        """Accept sockets for ever, as long as there is room in the lobby."""
        accepting = trio.socket.from_stdlib_socket(listener.socket)
        while True:
            await self._reception.lobby.wait_place()
            try:
                accepted, _ = await accepting.accept()
            except OSError as error:
                # One client's trouble concerns nobody else; a lack of descriptors passes.
                if error.errno not in _CLIENTS_OWN:
                    note(logging.WARNING, "accept_failed", errno=error.errno, reason=error.strerror)
                    await trio.sleep(ACCEPT_PAUSE)
                continue
            sock = socket.socket(fileno=accepted.detach())
            connections.start_soon(
                partial(self._reception.serve, sock, secure=listener.secure), name="connection"
            )

    async def _stop(self) -> None:
        """Rule 2."""
        note(logging.INFO, "draining")
        self._site.draining = True
        self._reception.stop_reading()
        with trio.move_on_after(SETTLE_SECONDS) as waiting:
            await self._broker.wait_settled()
        self._settled = not waiting.cancelled_caught
        self._rooms.quiet = True
        with trio.move_on_after(self._settings.drain):
            await self._reception.end_all(RESTARTING)

    def statistics(self) -> Statistics:
        """One look at everything."""
        return Statistics(
            connections=self._tallies.statistics().connections,
            handshakes=len(self._reception.lobby),
            rooms=len(self._rooms),
            presences=self._rooms.presences,
            lagging_members=self._rooms.lagging,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            messages_total=self._rooms.messages,
            deliveries_total=self._broker.fanout.deliveries,
            drops=dict(self._reception.drops),
            refusals=dict(self._site.refusals),
        )


def _page() -> Response:
    html = load_page()
    return Response(200, html, "text/html; charset=utf-8", (("Content-Security-Policy", policy(html)),))
