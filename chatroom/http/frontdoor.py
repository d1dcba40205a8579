"""The front door: serves HTTP on a new connection until a WebSocket is admitted or the connection ends.

Owns the I/O of HTTP on one connection, and its deadlines. Rules:

1. Every wait has a deadline: for a whole head, for the next request, for an answer to be sent, for the peer
   to close. A slow or silent peer costs one task until then.
2. A peer that has sent nothing is closed silently. One that has sent half a head gets 408.
3. Requests are answered in their order, one at a time. An answer is the last one if the bytes behind its
   request can't be trusted, or aren't known to be a request.
4. After the last answer the sending half is closed. For a moment, further input is read and discarded:
   closing with unread input would reset the connection and lose the answer.
5. Nothing is awaited between the site's admission and the return, so an admission is never lost.
6. The client of a trusted proxy is read from each request again, since clients share the proxy's connections.

It doesn't know what the site answers, which clients it admits, or what a WebSocket is.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Generic, Protocol, TypeVar

import trio

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.http.exchange import Exchange, HeadScanner, has_body
from chatroom.http.handshake import (
    CORS_HEADERS,
    HANDSHAKE_PATH,
    OPTIONS_ANSWER,
    PREFLIGHT,
    Upgrade,
    asks_upgrade,
    canonical,
    route,
)
from chatroom.net.proxies import Proxies, ProxyHeader, ProxyHeaderReader
from chatroom.net.transport import Transport

READ_BYTES = 4096
PIPELINE_PAUSE = 0.01
"""Seconds between the answers to requests that came at once."""
LINGER_SECONDS = 1.0
LINGER_BYTES = 256 * 1024
SLOWEST_WRITE = 64 * 1024
"""A large answer has the send timeout for each block of so many bytes."""

NO_PROXIES = Proxies()
_KEEPING = frozenset({401, 403, 404, 405, 429})
"""Refusals after which a plain request may follow. After 400 the next bytes can't be trusted."""

Vetted = TypeVar("Vetted")
Admission = TypeVar("Admission")
Admission_co = TypeVar("Admission_co", covariant=True)


class Site(Protocol[Vetted, Admission_co]):
    """The server's answers behind the front door. All methods are quick, and but one synchronous.

    They refuse by raising Refusal. Any other exception leaves `receive`.
    """

    @property
    def draining(self) -> bool:
        """The server is about to stop: all handshakes are refused."""

    @property
    def paths(self) -> frozenset[str]:
        """The paths that are served."""

    def answer(self, request: Request) -> Response:
        """The answer to a GET of one of `paths` but HANDSHAKE_PATH, also for a HEAD. Raises Refusal."""

    def vet(self, request: Request, upgrade: Upgrade | None) -> Vetted:
        """The client of a handshake, or without an upgrade of HANDSHAKE_PATH. Raises Refusal."""

    async def check_ban(self, vetted: Vetted) -> None:
        """Raises Refusal if the client is banned from its room. Waits for some seconds at most."""

    def admit(self, vetted: Vetted, upgrade: Upgrade) -> Admission_co:
        """Admit a WebSocket. The result holds its slot. Raises Refusal."""

    def preview(self, vetted: Vetted) -> Response:
        """The answer to a GET of HANDSHAKE_PATH. Raises Refusal."""

    def untrusted_proxy(self, peer: Peer) -> None:
        """The peer sends X-Forwarded-For, but isn't a trusted proxy. The operator may have forgotten it."""

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        """The peer is refused by `status`. `request` is None if its head couldn't be read."""


@dataclass(frozen=True, slots=True)
class Admitted(Generic[Admission]):
    """An admitted WebSocket: `head` is the handshake for the library, `trailing` the bytes behind it."""

    admission: Admission
    upgrade: Upgrade
    head: bytes
    trailing: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    response: Response
    close: bool


async def receive(
    transport: Transport,
    site: Site[Vetted, Admission],
    limits: Limits,
    peer: Peer,
    *,
    secure: bool = False,
    proxies: Proxies = NO_PROXIES,
    named_by_proxy: bool = False,
    wall_clock: Callable[[], float] = time.time,
) -> Admitted[Admission] | None:
    """Serve the peer until it is admitted, or until the connection has ended (None).

    `named_by_proxy`: a trusted proxy has named the peer, see `read_proxy_header`.

    Resource handling: with an Admitted, the open transport belongs to the caller again. With None it is
    closed. With an exception, cancellation included, it is aborted.

    Error handling: no fault of the peer or of the network raises. Exceptions of `site` other than Refusal do.
    """
    try:
        return await _HttpConnection(
            transport, site, limits, peer, secure, proxies, named_by_proxy, wall_clock
        ).serve()
    except BaseException:
        transport.abort()
        raise


async def read_proxy_header(transport: Transport, limits: Limits) -> ProxyHeader | None:
    """Read the PROXY protocol's header of a new connection. None if the proxy has gone or sends nothing.

    Nothing behind the header is read. Raises Refusal if the first bytes are no such header.
    """
    reader = ProxyHeaderReader()
    with trio.move_on_after(limits.head_seconds) as waiting, suppress(OSError):
        while reader.wanted:
            data = await transport.receive_some(reader.wanted)
            if not data:
                return None
            reader.feed(data)
        return reader.header
    if waiting.cancelled_caught and reader.started:
        raise Refusal(408, "The header of the PROXY protocol took too long")
    return None


async def send_refusal(
    transport: Transport, site: Site[Vetted, Admission], limits: Limits, peer: Peer, refusal: Refusal
) -> None:
    """Answer a peer that has no request, and close the connection."""
    try:
        connection = _HttpConnection(transport, site, limits, peer, False, NO_PROXIES, False, time.time)
        await connection.send_refusal(refusal)
    except BaseException:
        transport.abort()
        raise


@dataclass(frozen=True, slots=True)
class _HttpConnection(Generic[Vetted, Admission]):
    """One connection, from its first byte to its admission or its end."""

    transport: Transport
    site: Site[Vetted, Admission]
    limits: Limits
    peer: Peer
    secure: bool
    proxies: Proxies
    named_by_proxy: bool
    wall_clock: Callable[[], float]

    async def serve(self) -> Admitted[Admission] | None:
        data = b""
        first = True
        while True:
            exchange = Exchange()
            scanner = HeadScanner(self.limits.head_bytes, self.limits.head_line, self.limits.head_headers)
            outcome = await self._next_outcome(exchange, scanner, data, first)
            if isinstance(outcome, Admitted):
                return outcome
            if outcome is None:
                break
            if not await self._send(exchange, outcome):
                self.transport.abort()
                return None
            if not exchange.reusable:
                await self._linger()
                break
            data = scanner.trailing
            first = False
            # A peer that doesn't wait for answers must not take up the server's whole time.
            await trio.sleep(PIPELINE_PAUSE if data else 0)
        await self._close()
        return None

    async def send_refusal(self, refusal: Refusal) -> None:
        """See the function `send_refusal`."""
        if await self._send(Exchange(), self._refuse(refusal, None)):
            await self._linger()
        await self._close()

    async def _next_outcome(
        self, exchange: Exchange, scanner: HeadScanner, data: bytes, first: bool
    ) -> Admitted[Admission] | _Answer | None:
        """The answer to the next request, or the admission. None: close without an answer."""
        try:
            complete = await self._read_head(scanner, data, first)
        except Refusal as refusal:
            return self._refuse(refusal, None)
        return await self._decide(exchange, scanner) if complete else None

    async def _read_head(self, scanner: HeadScanner, data: bytes, first: bool) -> bool:
        """Feed the scanner, beginning with `data`, until the head is complete.

        False if the peer has gone, or sends nothing. Raises Refusal. The time of the connection's first head
        runs from the start, that of any other head from its first byte.
        """
        if not first and not data:
            data = await self._read(trio.current_time() + self.limits.head_seconds) or b""
            if not data:
                return False
        deadline = trio.current_time() + self.limits.head_seconds
        scanner.feed(data)
        while not scanner.complete:
            received = await self._read(deadline)
            if received is None and scanner.started:
                raise Refusal(408, "The head took too long")
            if not received:
                return False
            scanner.feed(received)
        return True

    async def _decide(self, exchange: Exchange, scanner: HeadScanner) -> Admitted[Admission] | _Answer:
        """The answer to a complete head, or the admission. Does no I/O of its own."""
        request = None
        try:
            request = exchange.read(scanner.head, self.peer, secure=self.secure)
            named = self.named_by_proxy or self.proxies.trusts(self.peer)
            if not named and request.values("x-forwarded-for"):
                self.site.untrusted_proxy(self.peer)
            request = self.proxies.resolve_client(request, named_by_proxy=self.named_by_proxy)
            upgrade = self._route(request)
            if upgrade is None and request.method == "OPTIONS":
                response = PREFLIGHT if request.path == HANDSHAKE_PATH else OPTIONS_ANSWER
            elif upgrade is None and request.path != HANDSHAKE_PATH:
                response = self.site.answer(request)
            else:
                vetted = self.site.vet(request, upgrade)
                await self.site.check_ban(vetted)
                if self.site.draining:  # a stop has begun meanwhile
                    self._route(request)
                if upgrade is not None:
                    admission = self.site.admit(vetted, upgrade)
                    return Admitted(admission, upgrade, canonical(upgrade), scanner.trailing)
                response = self.site.preview(vetted)
        except Refusal as refusal:
            return self._refuse(refusal, request)
        return _Answer(_shared(response, request), has_body(request))

    def _route(self, request: Request) -> Upgrade | None:
        return route(request, draining=self.site.draining, paths=self.site.paths)

    def _refuse(self, refusal: Refusal, request: Request | None) -> _Answer:
        self.site.refused(request.peer if request else self.peer, refusal.status, request)
        line = " ".join(refusal.text.split())
        response = Response(refusal.status, line.encode("utf-8", "replace"), headers=refusal.headers)
        if request is None:
            return _Answer(response, close=True)
        close = refusal.status not in _KEEPING or asks_upgrade(request) or has_body(request)
        return _Answer(_shared(response, request), close)

    async def _read(self, deadline: float) -> bytes | None:
        """The next bytes: b"" if the peer has gone, None if nothing comes in time."""
        with trio.CancelScope(deadline=deadline):
            try:
                return await self.transport.receive_some(READ_BYTES)
            except OSError:
                return b""
        return None

    async def _send(self, exchange: Exchange, answer: _Answer) -> bool:
        """Send an answer. False if the peer doesn't take all of it in time."""
        date = formatdate(self.wall_clock(), usegmt=True)
        data = exchange.write(answer.response, date=date, close=answer.close)
        patience = self.limits.send_timeout * (1 + len(data) // SLOWEST_WRITE)
        with trio.CancelScope(deadline=trio.current_time() + patience):
            try:
                while data:
                    data = data[await self.transport.send_some(data) :]
            except OSError:
                return False
        return not data

    async def _linger(self) -> None:
        """Close the sending half, and give the peer a moment to read the last answer (rule 4)."""
        with trio.move_on_after(LINGER_SECONDS), suppress(OSError):
            await self.transport.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self.transport.receive_some(READ_BYTES)):
                left -= len(data)

    async def _close(self) -> None:
        with trio.move_on_after(LINGER_SECONDS), suppress(OSError):
            await self.transport.aclose()
            return
        self.transport.abort()


def _shared(response: Response, request: Request) -> Response:
    """The response; for HANDSHAKE_PATH readable by pages of any origin."""
    if request.path != HANDSHAKE_PATH:
        return response
    return replace(response, headers=(*response.headers, *CORS_HEADERS))
