"""The front door over memory streams: answers, admission, and how a connection ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.limits import Limits
from chatroom.http.frontdoor import (
    LINGER_BYTES,
    LINGER_SECONDS,
    PIPELINE_PAUSE,
    SLOWEST_WRITE,
    Admitted,
    read_proxy_header,
    receive,
    send_refusal,
)
from chatroom.http.handshake import PATHS, Upgrade
from chatroom.net.proxies import Proxies, ProxyHeader
from tests.support.http_transport import WHOLE, HttpClient

PEER = Peer("192.0.2.1")
LIMITS = Limits()
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "GET /?token=T HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chatroom.v1\r\n\r\n"
).encode()
CANONICAL = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chatroom.v1\r\n\r\n"
).encode()


@dataclass
class Site:
    """Answers with the method and path, lets everybody in with the query, unless told to refuse."""

    draining: bool = False
    refusal: Exception | None = None
    refusals: list[tuple[int, str | None]] = field(default_factory=list)
    admitted: int = 0
    body: bytes = b""
    unbelieved: int = 0
    paths: frozenset[str] = PATHS
    drains_meanwhile: bool = False

    def untrusted_proxy(self, peer: Peer) -> None:
        assert peer is PEER
        self.unbelieved += 1

    def answer(self, request: Request) -> Response:
        if self.refusal:
            raise self.refusal
        return Response(200, self.body or f"{request.method} {request.path}".encode())

    def vet(self, request: Request, upgrade: Upgrade | None) -> Request:
        if self.refusal:
            raise self.refusal
        return request

    async def check_ban(self, vetted: Request) -> None:
        await trio.lowlevel.checkpoint()
        self.draining = self.draining or self.drains_meanwhile
        if "banned" in vetted.query:
            raise Refusal(403, "Banned from this room", (("Retry-After", "9"),))

    def admit(self, vetted: Request, upgrade: Upgrade) -> str:
        self.admitted += 1
        return vetted.query

    def preview(self, vetted: Request) -> Response:
        return Response(200, self.body or f"{vetted.method} {vetted.path}".encode())

    def refused(self, peer: Peer, status: int, request: Request | None) -> None:
        assert peer is PEER
        self.refusals.append((status, request and request.path))


def answers(raw: bytes, methods: Sequence[str] = ()) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in `raw`, which must hold whole ones and nothing else."""
    found = []
    while raw:
        parser = h11.Connection(h11.CLIENT)
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(raw)
        head = parser.next_event()
        assert isinstance(head, h11.Response)
        body = b""
        while isinstance(event := parser.next_event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        headers = {name.decode(): value.decode() for name, value in head.headers}
        found.append((head.status_code, headers, body))
        raw = parser.trailing_data[0]
    return found


async def answers_to(
    *pieces: bytes, site: Site | None = None, methods: Sequence[str] = (), limits: Limits = LIMITS
) -> list[tuple[int, dict[str, str], bytes]]:
    """Send the pieces, half a second apart, and nothing more; the answers up to the end of the connection."""
    client = HttpClient()

    async def send() -> None:
        for number, piece in enumerate(pieces):
            await trio.sleep(0.5 if number else 0)
            await client.send(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await receive(client.transport, site or Site(), limits, PEER) is None
    assert client.transport.closed or client.transport.aborted
    return answers(await client.receive_all(), methods)


# Plain HTTP


async def test_a_request_is_answered_and_an_idle_connection_closed_silently(
    autojump_clock: MockClock,
) -> None:
    start = trio.current_time()
    ((status, headers, body),) = await answers_to(GET)
    assert (status, body) == (200, b"GET /")
    assert headers["date"].endswith(" GMT")
    assert headers["x-content-type-options"] == "nosniff"
    assert "connection" not in headers
    assert trio.current_time() - start == pytest.approx(LIMITS.head_seconds)


async def test_the_date_is_the_one_of_the_clock(autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(LAST)
    await client.send_eof()
    await receive(client.transport, Site(), LIMITS, PEER, wall_clock=lambda: 784111777.0)
    assert answers(await client.receive_all())[0][1]["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"


async def test_a_connection_serves_one_request_after_another(autojump_clock: MockClock) -> None:
    found = await answers_to(GET, GET, GET.replace(b"GET", b"HEAD"), LAST, methods=["GET", "GET", "HEAD"])
    assert [body for _, _, body in found] == [b"GET /", b"GET /", b"", b"GET /metrics"]
    assert found[2][1]["content-length"] == str(len(b"HEAD /"))
    assert found[3][1]["connection"] == "close"


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    paths = ["/", "/healthz", "/nowhere", "/metrics", "/readyz"]
    found = await answers_to(b"".join(GET.replace(b"/ ", path.encode() + b" ") for path in paths))
    assert [status for status, _, _ in found] == [200, 200, 404, 200, 200]
    assert [body for _, _, body in found] == [
        b"GET /",
        b"GET /healthz",
        b"Not Found",
        b"GET /metrics",
        b"GET /readyz",
    ]


async def test_http_1_0_is_answered_once(autojump_clock: MockClock) -> None:
    ((status, headers, body),) = await answers_to(b"GET / HTTP/1.0\r\n\r\n" + GET)
    assert (status, headers["connection"], body) == (200, "close", b"GET /")


@pytest.mark.parametrize(
    "announced",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n",
        b"Content-Length: 99999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    ],
)
async def test_a_request_with_a_body_is_answered_and_is_the_last(
    announced: bytes, autojump_clock: MockClock
) -> None:
    ((status, headers, body),) = await answers_to(GET[:-2] + announced, GET)
    assert (status, headers["connection"], body) == (200, "close", b"GET /")


@pytest.mark.parametrize("path", [b"/healthz", b"/nowhere"])
async def test_a_refused_request_with_a_body_is_the_last(path: bytes, autojump_clock: MockClock) -> None:
    post = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\n" + GET
    ((status, headers, _),) = await answers_to(post)
    assert status in {404, 405}
    assert headers["connection"] == "close"


async def test_an_empty_body_and_a_pointless_expectation_change_nothing(autojump_clock: MockClock) -> None:
    found = await answers_to(GET[:-2] + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n" + LAST)
    assert [body for _, _, body in found] == [b"GET /", b"GET /metrics"]


async def test_an_offer_to_upgrade_to_something_else_is_ignored(autojump_clock: MockClock) -> None:
    h2c = GET[:-2] + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\n\r\n"
    assert [body for _, _, body in await answers_to(h2c + LAST)] == [b"GET /", b"GET /metrics"]


async def test_a_large_answer_goes_out_in_pieces_and_a_small_one_in_one(autojump_clock: MockClock) -> None:
    site = Site(body=b"x" * 300_000)
    client = HttpClient([1, 7, 4096, 100_000])
    await client.send(LAST)
    await client.send_eof()
    assert await receive(client.transport, site, LIMITS, PEER) is None
    assert answers(await client.receive_all())[0][2] == site.body
    client = HttpClient()
    await client.send(LAST)
    await client.send_eof()
    await receive(client.transport, Site(), LIMITS, PEER)
    assert client.transport.sends == 1


# Refusals


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429])
async def test_a_refusal_of_a_plain_request_leaves_the_connection_usable(
    status: int, autojump_clock: MockClock
) -> None:
    site = Site(refusal=Refusal(status, "Not now", (("Retry-After", "7"),)))
    found = await answers_to(GET + LAST, site=site)
    assert [(told, body) for told, _, body in found] == [(status, b"Not now")] * 2
    assert found[0][1]["retry-after"] == "7"
    assert found[0][1]["content-type"].startswith("text/plain")
    assert site.refusals == [(status, "/"), (status, "/metrics")]


@pytest.mark.parametrize("status", [400, 503])
async def test_other_refusals_are_the_last_answer(status: int, autojump_clock: MockClock) -> None:
    ((found, headers, _),) = await answers_to(GET + GET, site=Site(refusal=Refusal(status, "no")))
    assert (found, headers["connection"]) == (status, "close")


async def test_a_refusal_is_one_line_whatever_its_text(autojump_clock: MockClock) -> None:
    ((_, _, body),) = await answers_to(LAST, site=Site(refusal=Refusal(403, " a\r\n\r\nb\u2028é\ud800 ")))
    assert body.decode() == "a b é?"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n", 400),
        (b"\r\n" + GET, 400),
        (GET.replace(b"\r\n", b"\n"), 400),
        (GET.replace(b"Host: a", b"Host: \xff"), 400),
        (GET.replace(b"Host: a", b"X: a"), 400),
        (GET.replace(b"1.1", b"1.2"), 505),
        (b"GET /" + b"a" * 16384, 414),
        (GET[:-2] + b"A: b\r\n" * 100 + b"\r\n", 431),
        (GET[:-2] + b"A: " + b"b" * 32768, 431),
    ],
)
async def test_what_is_no_request_is_refused_once(
    head: bytes, status: int, autojump_clock: MockClock
) -> None:
    site = Site()
    ((found, headers, body),) = await answers_to(head + GET, site=site)
    assert (found, headers["connection"]) == (status, "close")
    assert body
    assert b"\n" not in body
    assert site.refusals[0][0] == status


async def test_a_refused_handshake_is_the_last_answer(autojump_clock: MockClock) -> None:
    site = Site(refusal=Refusal(429, "Too many", (("Retry-After", "7"),)))
    ((status, headers, body),) = await answers_to(HANDSHAKE + GET, site=site)
    assert (status, headers["retry-after"], headers["connection"], body) == (429, "7", "close", b"Too many")
    assert site.admitted == 0


async def test_another_version_of_the_protocol_is_told_the_right_one(autojump_clock: MockClock) -> None:
    ((status, headers, _),) = await answers_to(HANDSHAKE.replace(b"Version: 13", b"Version: 8"))
    assert (status, headers["sec-websocket-version"], headers["upgrade"]) == (426, "13", "websocket")


async def test_a_drain_refuses_a_handshake(autojump_clock: MockClock) -> None:
    site = Site(draining=True)
    ((status, headers, _),) = await answers_to(HANDSHAKE, site=site)
    assert (status, site.admitted) == (503, 0)
    assert headers["retry-after"].isdecimal()


async def test_pages_of_any_origin_may_read_what_a_handshake_would_answer(autojump_clock: MockClock) -> None:
    ask = GET.replace(b"/ ", b"/handshake?room=ops ")
    asks = ask.replace(b"GET", b"OPTIONS") + ask + ask.replace(b"GET", b"HEAD") + GET
    found = await answers_to(asks, methods=["OPTIONS", "GET", "HEAD", "GET"])
    assert [status for status, _, _ in found[:2]] == [204, 200]
    assert found[0][1]["access-control-allow-headers"] == "Authorization"
    found += await answers_to(ask, site=Site(refusal=Refusal(401, "Unauthorized")))
    found += await answers_to(ask.replace(b"GET", b"PUT"))
    found += await answers_to(ask, site=Site(draining=True))
    for _, headers, _ in (*found[:3], *found[4:]):
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-expose-headers"] == "Retry-After"
    assert "access-control-allow-origin" not in found[3][1]


# Letting in


@pytest.mark.parametrize("cuts", [WHOLE, [1], [3, 1, 50]])
async def test_who_is_let_in_keeps_the_transport(cuts: Sequence[int], autojump_clock: MockClock) -> None:
    client = HttpClient(cuts)
    await client.send(HANDSHAKE)
    admitted = await receive(client.transport, Site(), LIMITS, PEER)
    assert admitted == Admitted("token=T", Upgrade(KEY, ("chatroom.v1",)), CANONICAL, b"")
    assert not client.transport.closed
    assert not client.transport.aborted
    assert client.transport.sends == 0


@pytest.mark.parametrize("cuts", [WHOLE, [1], [len(HANDSHAKE) + 3]])
async def test_frames_glued_to_the_handshake_are_not_lost(
    cuts: Sequence[int], autojump_clock: MockClock
) -> None:
    frames = bytes(range(256)) * 20
    client = HttpClient(cuts)
    await client.send(HANDSHAKE + frames)
    admitted = await receive(client.transport, Site(), LIMITS, PEER)
    assert admitted is not None
    await client.send_eof()
    rest = b""
    while piece := await client.transport.receive_some(4096):
        rest += piece
    assert admitted.trailing + rest == frames


async def test_a_connection_that_served_requests_may_still_be_let_in(autojump_clock: MockClock) -> None:
    site = Site()
    client = HttpClient()
    await client.send(GET + GET + HANDSHAKE + b"frames")
    admitted = await receive(client.transport, site, LIMITS, PEER)
    assert admitted is not None
    assert (admitted.head, admitted.trailing) == (CANONICAL, b"frames")
    assert len(answers(await client.receive())) == 2


@pytest.mark.parametrize("secure", [False, True])
async def test_the_site_learns_who_came_and_how(secure: bool, autojump_clock: MockClock) -> None:
    seen = []

    class Witness(Site):
        def admit(self, request: Request, upgrade: Upgrade) -> str:
            seen.append((request.peer, request.secure))
            return super().admit(request, upgrade)

    client = HttpClient()
    await client.send(HANDSHAKE)
    options = {"secure": True} if secure else {}
    assert await receive(client.transport, Witness(), LIMITS, PEER, **options) is not None
    assert seen == [(PEER, secure)]


async def test_each_request_of_a_trusted_proxy_is_for_the_client_that_it_names(
    autojump_clock: MockClock,
) -> None:
    """Clients share a proxy's connection, and one whose head can't be read is the proxy's own."""
    seen = []

    class Witness(Site):
        def answer(self, request: Request) -> Response:
            seen.append(request.peer.address)
            return super().answer(request)

        def refused(self, peer: Peer, status: int, request: Request | None) -> None:
            seen.append(f"{status} {peer.address}")

    async def request(*lines: bytes) -> None:
        await client.send(b"\r\n".join([*lines, b"Host: a", b"", b""]))
        await trio.sleep(1)

    client = HttpClient()
    async with trio.open_nursery() as nursery:
        trusted = Proxies(frozenset({ip_network("192.0.2.0/24")}))
        nursery.start_soon(partial(receive, client.transport, Witness(), LIMITS, PEER, proxies=trusted))
        await request(b"GET / HTTP/1.1", b"X-Forwarded-For: 203.0.113.1")
        await request(b"GET / HTTP/1.1", b"X-Forwarded-For: 127.0.0.1, 2001:db8::2")
        await request(b"GET / HTTP/1.1")
        await request(b"GET /nowhere HTTP/1.1", b"X-Forwarded-For: 203.0.113.3")
        await request(b"GET / HTTP/1.1", b"X-Forwarded-For: 203.0.113.4", b"bad header")
    assert seen == ["203.0.113.1", "2001:db8::2", "192.0.2.1", "404 203.0.113.3", "400 192.0.2.1"]


@pytest.mark.parametrize(("trusted", "unbelieved"), [(["192.0.2.0/24"], 0), (["192.0.3.0/24"], 1), ([], 1)])
async def test_the_site_learns_of_proxies_that_are_not_trusted(
    trusted: list[str], unbelieved: int, autojump_clock: MockClock
) -> None:
    client, site = HttpClient(), Site()
    await client.send(LAST.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 203.0.113.1"))
    proxies = Proxies(frozenset(map(ip_network, trusted)))
    assert await receive(client.transport, site, LIMITS, PEER, proxies=proxies) is None
    assert site.unbelieved == unbelieved


async def test_an_admission_is_not_lost_to_a_cancellation(autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(HANDSHAKE)
    with trio.CancelScope() as scope:

        class Canceller(Site):
            def admit(self, request: Request, upgrade: Upgrade) -> str:
                scope.cancel()
                return super().admit(request, upgrade)

        assert await receive(client.transport, Canceller(), LIMITS, PEER) is not None


# Deadlines


async def test_who_says_nothing_is_closed_silently(autojump_clock: MockClock) -> None:
    site = Site()
    start = trio.current_time()
    assert await answers_to(site=site) == []
    assert trio.current_time() - start == pytest.approx(LIMITS.head_seconds)
    assert site.refusals == []


async def test_half_a_head_is_told_that_it_took_too_long(autojump_clock: MockClock) -> None:
    site = Site()
    start = trio.current_time()
    ((status, headers, _),) = await answers_to(*(GET[n : n + 1] for n in range(20)), site=site)
    assert (status, headers["connection"]) == (408, "close")
    assert site.refusals == [(408, None)]
    assert trio.current_time() - start <= LIMITS.head_seconds + 0.5 * 20


async def test_the_time_for_a_first_head_runs_from_the_start(autojump_clock: MockClock) -> None:
    late = int(LIMITS.head_seconds * 2) - 1
    pieces = [*([b""] * late), GET[:10], GET[10:]]
    assert [status for status, _, _ in await answers_to(*pieces)] == [408]


async def test_the_time_for_another_head_runs_from_its_first_byte(autojump_clock: MockClock) -> None:
    idle = [b""] * (int(LIMITS.head_seconds * 2) - 2)
    assert [status for status, _, _ in await answers_to(GET, *idle, GET[:10], b"", b"", GET[10:])] == [
        200,
        200,
    ]
    assert [status for status, _, _ in await answers_to(GET + GET[:10], *idle, GET[10:])] == [200, 200]
    assert [status for status, _, _ in await answers_to(GET + GET[:10], *idle, b"", b"", GET[10:])] == [
        200,
        408,
    ]


async def test_who_leaves_before_the_head_is_whole_gets_nothing(autojump_clock: MockClock) -> None:
    site = Site()
    for head in (b"", GET[:10], GET + GET[:10]):
        client = HttpClient()
        await client.send(head)
        await client.send_eof()
        start = trio.current_time()
        assert await receive(client.transport, site, LIMITS, PEER) is None
        assert trio.current_time() - start <= PIPELINE_PAUSE
        assert client.transport.closed
        assert len(answers(await client.receive_all())) == head.count(GET)
    assert site.refusals == []


@pytest.mark.parametrize("head", [b"", GET[:10], GET, b"BLAH\r\n\r\n", HANDSHAKE.replace(b"13", b"12")])
async def test_a_reset_raises_nothing(head: bytes, autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(head)
    client.reset()
    assert await receive(client.transport, Site(), LIMITS, PEER) is None
    assert client.transport.closed or client.transport.aborted


async def test_who_takes_no_answer_is_dropped_at_the_send_timeout(autojump_clock: MockClock) -> None:
    client = HttpClient()
    client.transport.pace = 1000.0
    await client.send(GET)
    start = trio.current_time()
    assert await receive(client.transport, Site(), LIMITS, PEER) is None
    assert trio.current_time() - start == pytest.approx(LIMITS.send_timeout)
    assert client.transport.aborted


async def test_a_large_answer_has_more_time_but_not_for_ever(autojump_clock: MockClock) -> None:
    body = b"x" * (2 * SLOWEST_WRITE)
    for size, taken in ((SLOWEST_WRITE // 4, True), (SLOWEST_WRITE // 16, False)):
        client = HttpClient([size])
        client.transport.pace = 0.3 * LIMITS.send_timeout
        await client.send(LAST)
        start = trio.current_time()
        assert await receive(client.transport, Site(body=body), LIMITS, PEER) is None
        assert client.transport.closed is taken
        assert trio.current_time() - start <= 3 * LIMITS.send_timeout + LINGER_SECONDS


# Endings


async def test_after_the_last_answer_the_server_says_so_and_waits_a_moment(autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(LAST)
    left = []

    async def leave() -> None:
        await client.receive_all()  # the end has come, though the server still reads
        assert not client.transport.closed
        await trio.sleep(LINGER_SECONDS / 2)
        left.append(trio.current_time())
        await client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await receive(client.transport, Site(), LIMITS, PEER)
        assert left == [trio.current_time()]


async def test_the_moment_ends_by_time_and_by_bytes(autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(LAST)
    start = trio.current_time()
    await receive(client.transport, Site(), LIMITS, PEER)
    assert trio.current_time() - start == pytest.approx(LINGER_SECONDS)
    client = HttpClient()
    await client.send(LAST + b"x" * (LINGER_BYTES + 10_000))
    start = trio.current_time()
    await receive(client.transport, Site(), LIMITS, PEER)
    assert trio.current_time() == start
    assert client.transport.closed


async def test_a_close_that_hangs_becomes_a_drop(autojump_clock: MockClock) -> None:
    client = HttpClient()
    client.transport.close_hangs = True
    await client.send_eof()
    assert await receive(client.transport, Site(), LIMITS, PEER) is None
    assert client.transport.aborted


@pytest.mark.parametrize("head", [GET, HANDSHAKE])
async def test_what_the_site_does_not_declare_goes_up(head: bytes, autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(head)
    with pytest.raises(OSError, match="the site's own"):
        await receive(client.transport, Site(refusal=OSError("the site's own")), LIMITS, PEER)
    assert client.transport.aborted


async def test_a_cancelled_visit_is_dropped(autojump_clock: MockClock) -> None:
    client = HttpClient()
    await client.send(GET)
    with trio.move_on_after(1) as scope:
        await receive(client.transport, Site(), LIMITS, PEER)
    assert scope.cancelled_caught
    assert client.transport.aborted


# Anything at all

LINES = (
    b"GET / HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\n",
    b"GET /handshake HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: close, upgrade\r\n",
    f"Sec-WebSocket-Key: {KEY}\r\n".encode(),
    b"Sec-WebSocket-Version: 13\r\n",
    b" folded\r\n",
    b"A: b\r\n" * 70,
    b"\r\n",
    b"\n",
    b"\x00",
    b"x" * 9000,
)
PIECES = st.one_of(st.binary(max_size=40), st.sampled_from((GET, LAST, HANDSHAKE, *LINES)))
STATUSES = {200, 204, 400, 404, 405, 408, 414, 426, 431, 503, 505}


def outcome(data: bytes, cuts: Sequence[int], *, leaves: bool, draining: bool) -> tuple[bytes, object]:
    """What the client was told, but for the date, and what came of the visit."""

    async def run() -> tuple[bytes, object]:
        client = HttpClient(cuts)
        await client.send(data)
        if leaves:
            await client.send_eof()
        site = Site(draining=draining)
        admitted = await receive(client.transport, site, LIMITS, PEER, wall_clock=lambda: 0.0)
        assert (client.transport.closed or client.transport.aborted) is (admitted is None)
        assert site.admitted == (admitted is not None)
        if admitted is None:
            return await client.receive_all(), None
        assert (admitted.head + admitted.trailing).startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        await client.transport.aclose()
        return await client.receive_all(), (admitted.admission, admitted.upgrade, admitted.head)

    return trio.run(run, clock=MockClock(autojump_threshold=0))


@settings(deadline=None)
@given(
    st.lists(PIECES, max_size=10).map(b"".join),
    st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_any_bytes_cut_anyhow_lead_to_the_same_declared_answers(
    data: bytes, cuts: Sequence[int], leaves: bool, draining: bool
) -> None:
    told, result = outcome(data, WHOLE, leaves=leaves, draining=draining)
    assert {status for status, _, _ in answers(told)} <= STATUSES
    assert outcome(data, cuts, leaves=leaves, draining=draining) == (told, result)
    if len(data) < 500:
        assert outcome(data, [1], leaves=leaves, draining=draining) == (told, result)


async def test_who_sends_requests_at_once_gets_no_more_than_its_pace(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    assert len(await answers_to(GET * 20 + LAST)) == 21
    assert trio.current_time() - start >= 20 * PIPELINE_PAUSE


# The PROXY protocol

LINE = b"PROXY TCP4 203.0.113.5 192.0.2.1 5 6\r\n"


@pytest.mark.parametrize("cuts", [(1,), (3, 1, 20), (1 << 20,)])
async def test_a_proxy_introduces_its_client_and_the_request_behind_that_is_served(
    cuts: Sequence[int], autojump_clock: MockClock
) -> None:
    client = HttpClient(cuts)
    await client.send(LINE + LAST)
    assert await read_proxy_header(client.transport, LIMITS) == ProxyHeader("203.0.113.5")
    assert await receive(client.transport, Site(), LIMITS, PEER, named_by_proxy=True) is None
    assert [status for status, _, _ in answers(await client.receive_all())] == [200]


async def test_a_proxy_that_introduces_nobody_has_time_for_that_as_for_a_head(
    autojump_clock: MockClock,
) -> None:
    silent, gone, slow, broken = (HttpClient() for _ in range(4))
    start = trio.current_time()
    assert await read_proxy_header(silent.transport, LIMITS) is None
    assert trio.current_time() - start == LIMITS.head_seconds
    await gone.send(LINE[:9])
    await gone.send_eof()
    assert await read_proxy_header(gone.transport, LIMITS) is None
    await broken.send(LINE[:9])
    broken.reset()
    assert await read_proxy_header(broken.transport, LIMITS) is None
    await slow.send(LINE[:9])
    with pytest.raises(Refusal, match="took too long"):
        await read_proxy_header(slow.transport, LIMITS)


async def test_who_is_turned_away_is_told_why(autojump_clock: MockClock) -> None:
    client, site = HttpClient(), Site()
    await client.send(GET)
    with pytest.raises(Refusal) as caught:
        await read_proxy_header(client.transport, LIMITS)
    await send_refusal(client.transport, site, LIMITS, PEER, caught.value)
    ((status, headers, body),) = answers(await client.receive_all())
    assert (status, headers["connection"]) == (400, "close")
    assert b"PROXY protocol" in body
    assert site.refusals == [(400, None)]
    assert client.transport.closed


async def test_turning_away_may_be_cancelled(autojump_clock: MockClock) -> None:
    client = HttpClient()
    with trio.move_on_after(0):
        await send_refusal(client.transport, Site(), LIMITS, PEER, Refusal(400, "No"))
    assert client.transport.aborted


async def test_headers_of_who_was_introduced_are_his_own(autojump_clock: MockClock) -> None:
    """X-Forwarded-For is not believed and no sign of a proxy that was forgotten; the scheme counts."""
    seen = []

    class Witness(Site):
        def admit(self, request: Request, upgrade: Upgrade) -> str:
            seen.append((request.peer, request.public_origins))
            return super().admit(request, upgrade)

    named = b"Host: a\r\nX-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: https"
    for named_by_proxy, public_origins in ((True, ("https://a",)), (False, ())):
        client, site = HttpClient(), Witness()
        await client.send(HANDSHAKE.replace(b"Host: a", named))
        proxies = Proxies(frozenset({ip_network("192.0.3.0/24")}))
        assert await receive(
            client.transport, site, LIMITS, PEER, proxies=proxies, named_by_proxy=named_by_proxy
        )
        assert seen.pop() == (PEER, public_origins)
        assert site.unbelieved == (not named_by_proxy)
