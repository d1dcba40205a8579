"""The front door: serves HTTP on a new connection until a WebSocket is admitted or the connection ends.

Owns the I/O of HTTP on one connection, and its deadlines. Rules:

1. Every wait has a deadline: for a whole head or body, for the next request, for an answer to be sent, for
   the peer to close. A slow or silent peer costs one task until then.
2. A peer that has sent nothing is closed silently. One that has sent half a head gets 408.
3. Requests are answered in their order, one at a time. An answer is the last one if the bytes behind its
   request can't be trusted, or aren't known to be a request.
4. After the last answer the sending half is closed. For a moment, further input is read and discarded:
   closing with unread input would reset the connection and lose the answer.
5. Nothing is awaited between the site's admission and the return, so an admission is never lost.
6. The client of a trusted proxy is read from each request again, since clients share the proxy's connections.
7. A body is read only of a request about rooms whose client may make it. Once it was read whole, another
   request may follow, whatever the answer. A stream of events takes the connection over, as a WebSocket does.

It doesn't know what the site answers, which clients it admits, or what a WebSocket is.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import trio

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.http import api
from chatroom.http.api import Caller, Route
from chatroom.http.body import BodyReader
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
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STREAM = Response(200, b"", "text/event-stream", (("X-Accel-Buffering", "no"), *CORS_HEADERS))
"""The head of a stream of events. nginx is asked to pass on at once what comes."""
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
Identity = TypeVar("Identity")
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


class Api(Protocol[Identity, Admission_co]):
    """Carries out the requests of one connection that ask for something in a room."""

    def begin(self, request: Request, asked: Route) -> Caller[Identity]:
        """Admit a request. From here until `done` its connection isn't one of a stranger. Raises Refusal."""

    async def carry_out(self, caller: Caller[Identity], body: bytes) -> Response | Admission_co:
        """The answer to an admitted request, or the admission of a stream. Raises Refusal.

        Nothing is awaited behind the admission of a stream, which holds its slot.
        """

    def done(self) -> None:
        """The request has been answered, or there was none."""

    def close(self) -> None:
        """There is no further request."""


@dataclass(frozen=True, slots=True)
class Admitted(Generic[Admission]):
    """An admitted WebSocket: `head` is the handshake for the library, `trailing` the bytes behind it.

    Of an admitted stream of events, which has no `upgrade`, the `head` is that of its answer.
    """

    admission: Admission
    upgrade: Upgrade | None
    head: bytes
    trailing: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer; `rest` are the bytes behind its request."""

    response: Response
    close: bool
    rest: bytes = b""


async def receive(
    transport: Transport,
    site: Site[Vetted, Admission],
    limits: Limits,
    peer: Peer,
    *,
    secure: bool = False,
    proxies: Proxies = NO_PROXIES,
    named_by_proxy: bool = False,
    api: Api[Any, Admission] | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Admitted[Admission] | None:
    """Serve the peer until it is admitted, or until the connection has ended (None).

    `named_by_proxy`: a trusted proxy has named the peer, see `read_proxy_header`. Without an `api` nothing is
    told of rooms.

    Resource handling: with an Admitted, the open transport belongs to the caller again. With None it is
    closed. With an exception, cancellation included, it is aborted.

    Error handling: no fault of the peer or of the network raises. Exceptions of `site` other than Refusal do.
    """
    try:
        return await _HttpConnection(
            transport, site, limits, peer, secure, proxies, named_by_proxy, api, wall_clock
        ).serve()
    except BaseException:
        transport.abort()
        raise
    finally:
        if api is not None:
            api.close()


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
        connection = _HttpConnection(transport, site, limits, peer, False, NO_PROXIES, False, None, time.time)
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
    api: Api[Any, Admission] | None
    wall_clock: Callable[[], float]

    async def serve(self) -> Admitted[Admission] | None:
        # One scope for all waits for a further request: one for each would cost more than reading it does.
        with trio.CancelScope() as waiting:
            return await self._serve(waiting)
        await self._close()
        return None

    async def _serve(self, waiting: trio.CancelScope) -> Admitted[Admission] | None:
        data = b""
        first = True
        while True:
            exchange = Exchange()
            scanner = HeadScanner(self.limits.head_bytes, self.limits.head_line, self.limits.head_headers)
            if not (first or data):
                waiting.deadline = trio.current_time() + self.limits.head_seconds
                data = await self._read_next()
                waiting.deadline = math.inf
                if not data:
                    break
            outcome = await self._next_outcome(exchange, scanner, data)
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
            if self.api is not None:
                self.api.done()
            data = outcome.rest
            first = False
            if data:  # a peer that doesn't wait for answers must not take up the server's whole time
                await trio.sleep(PIPELINE_PAUSE)
        await self._close()
        return None

    async def send_refusal(self, refusal: Refusal) -> None:
        """See the function `send_refusal`."""
        if await self._send(Exchange(), self._refuse(refusal, None)):
            await self._linger()
        await self._close()

    async def _next_outcome(
        self, exchange: Exchange, scanner: HeadScanner, data: bytes
    ) -> Admitted[Admission] | _Answer | None:
        """The answer to the next request, or the admission. None: close without an answer."""
        try:
            complete = await self._read_head(scanner, data)
        except Refusal as refusal:
            return self._refuse(refusal, None)
        return await self._decide(exchange, scanner) if complete else None

    async def _read_head(self, scanner: HeadScanner, data: bytes) -> bool:
        """Feed the scanner, beginning with `data`, until the head is complete.

        False if the peer has gone, or sends nothing. Raises Refusal. The time of the connection's first head
        runs from the start, that of any other head from its first bytes, which are `data`.
        """
        scanner.feed(data)
        if scanner.complete:
            return True
        deadline = trio.current_time() + self.limits.head_seconds
        while not scanner.complete:
            received = await self._read(deadline)
            if received is None and scanner.started:
                raise Refusal(408, "The head took too long")
            if not received:
                return False
            scanner.feed(received)
        return True

    async def _decide(self, exchange: Exchange, scanner: HeadScanner) -> Admitted[Admission] | _Answer:
        """The answer to a complete head, or the admission."""
        request = None
        try:
            request = exchange.read(scanner.head, self.peer, secure=self.secure, plain=scanner.plain)
            named = self.named_by_proxy or self.proxies.trusts(self.peer)
            if not named and request.values("x-forwarded-for"):
                self.site.untrusted_proxy(self.peer)
            request = self.proxies.resolve_client(request, named_by_proxy=self.named_by_proxy)
            if self.api is not None and api.is_api(request.path):
                return await self._call(exchange, scanner, request, self.api)
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
            return self._refuse(refusal, request, scanner.trailing)
        return _Answer(_shared(response, request), has_body(request), scanner.trailing)

    def _route(self, request: Request) -> Upgrade | None:
        return route(request, draining=self.site.draining, paths=self.site.paths)

    async def _call(
        self, exchange: Exchange, scanner: HeadScanner, request: Request, rooms: Api[Any, Admission]
    ) -> Admitted[Admission] | _Answer:
        """The answer to a request about rooms, or the admission of a stream. Raises Refusal."""
        asked = api.route(request, draining=self.site.draining)
        if asked is None:
            return _Answer(_shared(api.PREFLIGHT, request), has_body(request), scanner.trailing)
        caller = rooms.begin(request, asked)
        if asked.command not in api.WITH_BODY:
            body, close, rest = b"", has_body(request), scanner.trailing
        else:
            reader = exchange.expect_body(request, self.limits.frame_bytes)
            await self._read_body(request, reader, scanner.trailing)
            body, close, rest = reader.body, False, reader.trailing
        try:
            api.check_draining(self.site.draining)  # a stop may have begun meanwhile
            result = await rooms.carry_out(caller, body)
        except Refusal as refusal:
            answer = self._refuse(refusal, request, rest)
            return replace(answer, close=close or self.site.draining)
        if isinstance(result, Response):
            return _Answer(_shared(result, request), close or self.site.draining, rest)
        head = exchange.write_stream_head(STREAM, date=self._date())
        return Admitted(result, None, head, rest)

    async def _read_body(self, request: Request, reader: BodyReader, data: bytes) -> None:
        """Read the whole body, of which `data` has come already. Raises Refusal."""
        reader.feed(data)
        if reader.complete:
            return
        deadline = trio.current_time() + self.limits.head_seconds
        if not data and request.values("expect") and request.http_version == "1.1":
            await self._send_bytes(CONTINUE)
        while not reader.complete:
            received = await self._read(deadline)
            if received is None:
                raise Refusal(408, "The body took too long")
            if not received:
                raise Refusal(400, "The body is incomplete")
            reader.feed(received)

    def _refuse(self, refusal: Refusal, request: Request | None, rest: bytes = b"") -> _Answer:
        self.site.refused(request.peer if request else self.peer, refusal.status, request)
        line = " ".join(refusal.text.split())
        response = Response(refusal.status, line.encode("utf-8", "replace"), headers=refusal.headers)
        if request is None:
            return _Answer(response, close=True)
        close = refusal.status not in _KEEPING or asks_upgrade(request) or has_body(request)
        return _Answer(_shared(response, request), close, rest)

    async def _read_next(self) -> bytes:
        """The first bytes of a further request, or b"" if the peer has gone."""
        try:
            while True:
                await self.transport.wait_readable()  # as a rule nothing has come yet
                if (data := self.transport.receive_nowait(READ_BYTES)) is not None:
                    return data
        except OSError:
            return b""

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
        return await self._send_bytes(exchange.write(answer.response, date=self._date(), close=answer.close))

    def _date(self) -> str:
        return _date_of(int(self.wall_clock()))

    async def _send_bytes(self, data: bytes) -> bool:
        try:
            data = data[self.transport.send_nowait(data) :]
        except OSError:
            return False
        if not data and not self.transport.held:
            return True  # nearly always, and then no deadline is needed
        patience = self.limits.send_timeout * (1 + len(data) // SLOWEST_WRITE)
        with trio.CancelScope(deadline=trio.current_time() + patience):
            try:
                while data:
                    data = data[await self.transport.send_some(data) :]
                while self.transport.held:
                    await self.transport.wait_room()
                    self.transport.send_nowait(b"")
            except OSError:
                return False
        return not data and not self.transport.held

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


@lru_cache(1)
def _date_of(second: int) -> str:
    """The header Date: the same for all answers of a second."""
    return formatdate(second, usegmt=True)


def _shared(response: Response, request: Request) -> Response:
    """The response; for HANDSHAKE_PATH and the paths of rooms readable by pages of any origin."""
    shared = request.path == HANDSHAKE_PATH or api.is_api(request.path)
    if not shared or CORS_HEADERS[0] in response.headers:
        return response
    return replace(response, headers=(*response.headers, *CORS_HEADERS))
