"""From an accepted socket to a served connection: what ends one ends no other, and no slot is lost."""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity, TokenTable, Verifier, Verifiers
from chatroom.connections.acceptor import UNIX_PEER, Acceptor, peer_of
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.http import Peer, Response
from chatroom.core.limits import Limits
from chatroom.core.statistics import Drop
from chatroom.engines.engine import Engine
from chatroom.engines.memory import MemoryEngine
from chatroom.http.handshake import Upgrade, Vetted
from chatroom.http.site import Admission, Admissions, ChatSite
from chatroom.net.listeners import load_tls
from chatroom.net.poller import make_poller
from chatroom.net.proxies import UNIX, Proxies
from tests.support.client_frames import CLOSE, Frame, masked, read_frames
from tests.support.engines import HeldEngine
from tests.support.harness import BrokerHarness, open_broker
from tests.support.line import say
from tests.support.process import ROOT
from tests.support.raw import handshake

PEM = str(ROOT / "tests" / "support" / "localhost.pem")
RESTARTING = Disconnect(CloseCode.RESTART, "server is restarting")
LIMITS = Limits(message_rate=0, head_seconds=3.0, unauthenticated=3)


class Fault(Exception):
    """Something that nobody expected."""


@dataclass
class Client:
    """The other end of an accepted socket."""

    stream: trio.abc.HalfCloseableStream
    received: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, enough: Callable[[bytes], object]) -> bytes:
        with trio.fail_after(20):
            while not enough(self.received):
                data = await self.stream.receive_some()
                if not data:
                    break
                self.received += data
        return self.received

    async def read_to_end(self) -> None:
        """Until the server has closed, or dropped, the connection."""
        with suppress(trio.BrokenResourceError):
            await self.read_until(lambda _: False)

    async def upgrade(self, username: str) -> None:
        await self.send(handshake(f"/?token=token-alice&username={username}"))
        await self.read_until(lambda data: b'"welcome"' in data)
        assert b'"welcome"' in self.received, self.received

    @property
    def frames(self) -> list[Frame]:
        return read_frames(self.received.partition(b"\r\n\r\n")[2])[0]


class Harness:
    """An acceptor with everything behind it, and clients whose sockets it serves."""

    def __init__(
        self,
        broker_harness: BrokerHarness,
        nursery: trio.Nursery,
        *,
        site: type[ChatSite],
        metrics: Callable[[], Response],
        tls: bool,
        verifier: Verifier,
    ) -> None:
        self.connection_limits = ConnectionLimits(LIMITS)
        self.time_of_day = 1000.0
        admissions = Admissions(verifier, self.connection_limits, None, trio.current_time)
        self.site = site(
            admissions=admissions,
            page=Response(200, b"page"),
            metrics=metrics,
            troubles=lambda: (),
            clock=trio.current_time,
            watch=lambda _: None,
            ban=broker_harness.broker.ban,
        )
        self.broker_harness = broker_harness
        self.acceptor = Acceptor(
            site=self.site,
            renew=admissions.renew,
            verifier=verifier,
            broker=broker_harness.broker,
            engine=broker_harness.engine,
            limits=LIMITS,
            tls=load_tls(PEM, PEM) if tls else None,
            proxies=Proxies(frozenset({UNIX})),
            run="run",
            wall_clock=lambda: self.time_of_day,
            poller=(poller := make_poller()),
        )
        nursery.start_soon(poller.run)
        self._secure = tls
        self._nursery = nursery
        self.served = 0
        self._change = trio.Event()
        self.sockets: list[socket.socket] = []

    def call(self, serve: Callable[..., Awaitable[None]] | None = None) -> Client:
        """Somebody connects."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.sockets.append(theirs)
        self._nursery.start_soon(self._serve, ours, serve or self.acceptor.serve)
        return Client(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))

    async def _serve(self, sock: socket.socket, serve: Callable[..., Awaitable[None]]) -> None:
        await serve(sock, secure=self._secure)
        self.served += 1
        self._change.set()
        self._change = trio.Event()

    @property
    def slots(self) -> int:
        return self.connection_limits.statistics().connections

    async def wait_served(self, times: int) -> None:
        with trio.fail_after(20):
            while self.served < times:
                await self._change.wait()


@asynccontextmanager
async def open_harness(
    *,
    engine: Engine | None = None,
    site: type[ChatSite] = ChatSite,
    metrics: Callable[[], Response] = lambda: Response(200, b"metrics"),
    tls: bool = False,
    verifier: Verifier | None = None,
) -> AsyncIterator[Harness]:
    async with open_broker(engine=engine) as broker_harness, trio.open_nursery() as nursery:
        verifier = verifier or TokenTable.development()
        harness = Harness(broker_harness, nursery, site=site, metrics=metrics, tls=tls, verifier=verifier)
        yield harness
        nursery.cancel_scope.cancel()
        for each in harness.sockets:
            each.close()


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if record.getMessage() == "connection_failed"]


async def test_plain_http_is_served_and_takes_no_slot() -> None:
    async with open_harness() as harness:
        client = harness.call()
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200" in await client.read_until(lambda data: data.endswith(b"ok\n"))
        await client.stream.aclose()
        await harness.wait_served(1)
        assert (harness.slots, len(harness.acceptor.pending)) == (0, 0)


async def test_a_client_is_let_in_talks_and_leaves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_harness() as harness:
        client = harness.call()
        await client.upgrade("alice")
        assert (harness.slots, len(harness.acceptor.pending), len(harness.acceptor.keepalive)) == (1, 0, 1)
        await client.send(say("hi") + masked(CLOSE, b"\x03\xe8"))
        await client.read_until(lambda _: False)
        await harness.wait_served(1)
        assert client.frames[-1] == Frame(CLOSE, b"\x03\xe8")
        assert (harness.slots, len(harness.acceptor.keepalive), harness.acceptor.drops) == (0, 0, {})
    (left,) = [record.fields for record in caplog.records if record.getMessage() == "LEAVE"]
    assert left == {
        "conn": "run-1",
        "username": "alice",
        "peer": "unix",
        "room": "general",
        "code": None,
        "drop": None,
    }


async def test_a_connection_that_we_end_is_counted_by_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_harness() as harness:
        client = harness.call()
        await client.upgrade("alice")
        await client.send(masked(2, b"binary"))
        await client.read_until(lambda _: client.frames and client.frames[-1].opcode == CLOSE)
        await client.stream.aclose()
        await harness.wait_served(1)
        assert harness.acceptor.drops == {Drop.UNSUPPORTED_DATA: 1}
    (left,) = [record.fields for record in caplog.records if record.getMessage() == "LEAVE"]
    assert (left["code"], left["drop"]) == (1003, "unsupported_data")


# The barrier


async def test_an_exception_in_the_site_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Response:
        raise Fault("token-alice")

    async with open_harness(metrics=fail) as harness:
        other, client = harness.call(), harness.call()
        await other.upgrade("bob")
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.read_to_end()
        await harness.wait_served(1)
        await other.send(say("still here"))
        await other.read_until(lambda data: b"still here" in data)
    (failure,) = failures(caplog)
    assert failure["exception"] == "Fault"
    assert "token-alice" not in str(failure)


class FaultyEngine(MemoryEngine):
    """Fails for one user's history, in a way that no port allows."""

    async def history(self, room: str, epoch: str, **how: object) -> object:  # type: ignore[override]
        raise Fault


async def test_an_exception_in_a_connection_ends_it_and_releases_its_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_harness(engine=FaultyEngine(lambda: "e")) as harness:
        other, client = harness.call(), harness.call()
        await other.upgrade("bob")
        await client.upgrade("alice")
        await client.send(masked(1, b'{"event":"history"}'))
        await client.read_until(lambda data: b"internal error" in data)
        assert client.frames[-1] == Frame(CLOSE, b"\x03\xf3internal error")
        await client.send(masked(CLOSE, b"\x03\xf3"))
        await harness.wait_served(1)
        assert (harness.slots, harness.acceptor.drops) == (1, {Drop.INTERNAL_ERROR: 1})
        await other.read_until(lambda data: b'"left"' in data)
    assert [failure["exception"] for failure in failures(caplog)] == ["Fault"]


async def test_a_failure_between_admission_and_connection_releases_the_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Strange(ChatSite):
        def admit(self, vetted: Vetted[Identity], upgrade: Upgrade) -> Admission:
            admission = super().admit(vetted, upgrade)
            object.__setattr__(admission, "join_request", None)
            return admission

    async with open_harness(site=Strange) as harness:
        client = harness.call()
        await client.send(handshake("/?token=token-alice"))
        await client.read_to_end()
        await harness.wait_served(1)
        assert (harness.slots, len(harness.acceptor.pending)) == (0, 0)
    assert [failure["exception"] for failure in failures(caplog)] == ["AttributeError"]


async def test_a_cancelled_connection_leaves_nothing_behind() -> None:
    async with open_harness() as harness:
        async with trio.open_nursery() as nursery:
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
            nursery.start_soon(partial(harness.acceptor.serve, ours, secure=False))
            await client.upgrade("alice")
            nursery.cancel_scope.cancel()
        assert (harness.slots, len(harness.acceptor.keepalive)) == (0, 0)
        assert ours.fileno() == -1
        await client.stream.aclose()


async def test_a_pending_handshake_is_dropped_when_another_needs_its_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_harness() as harness:
        silent = [harness.call() for _ in range(LIMITS.unauthenticated)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(harness.acceptor.pending) == len(silent)
        await harness.acceptor.pending.wait_not_full()
        await harness.wait_served(1)
        assert len(harness.acceptor.pending) == len(silent) - 1


# TLS


async def test_a_client_may_come_by_tls() -> None:
    async with open_harness(tls=True) as harness:
        client = harness.call()
        context = ssl.create_default_context(cafile=PEM)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = Client(trio.SSLStream(client.stream, context, server_hostname="localhost"))  # type: ignore[arg-type]
        await client.upgrade("alice")
        assert harness.slots == 1
        await client.send(say("hi"))
        assert b'"text":"hi"' in await client.read_until(lambda data: b'"hi"' in data)


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", b""])
async def test_who_does_not_speak_tls_is_dropped_in_time(
    hello: bytes, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_harness(tls=True) as harness:
        client = harness.call()
        if hello:
            await client.send(hello)
        await harness.wait_served(1)
        assert trio.current_time() <= LIMITS.head_seconds + 0.1
        assert len(harness.acceptor.pending) == 0
        assert failures(caplog) == []
        await client.stream.aclose()


async def test_a_tls_handshake_that_is_cancelled_leaves_no_socket_open() -> None:
    async with open_harness(tls=True) as harness:
        ours, theirs = socket.socketpair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(harness.acceptor.serve, ours, secure=True))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ours.fileno() == -1
        theirs.close()


# Rights that end


class Issuer(Verifiers):
    """Its tokens are `token-alice`, and end at a time of day; none, if there is none."""

    def __init__(self, expires: int | None) -> None:
        super().__init__([])
        self.identity = Identity("alice", Rights.everything(), "static", "key", expires)

    def verify(self, token: str | None) -> Identity | None:
        return self.identity if token == "token-alice" else None


async def test_a_connection_whose_token_expires_is_closed_and_looked_after_no_more() -> None:
    async with open_harness(verifier=Issuer(971)) as harness, trio.open_nursery() as nursery:
        nursery.start_soon(harness.acceptor.expiry.run)
        client = harness.call()
        await client.upgrade("alice")
        await client.read_until(lambda data: b'"expiring","data":{"in":1}' in data)
        assert len(harness.acceptor.expiry) == 1
        harness.time_of_day += 1.5
        await client.read_until(lambda _: client.frames and client.frames[-1].opcode == CLOSE)
        assert client.frames[-1] == Frame(CLOSE, b"\x0f\xa1the token has expired")
        await client.stream.aclose()
        await harness.wait_served(1)
        assert (len(harness.acceptor.expiry), harness.acceptor.drops) == (0, {Drop.TOKEN_EXPIRED: 1})
        nursery.cancel_scope.cancel()


async def test_a_right_that_is_over_before_the_welcome_gets_none() -> None:
    async with open_harness(verifier=Issuer(969)) as harness:
        client = harness.call()
        await client.send(handshake("/?token=token-alice"))
        await client.read_to_end()
        assert b"welcome" not in client.received
        await client.stream.aclose()
        await harness.wait_served(1)
        assert harness.acceptor.drops == {Drop.TOKEN_EXPIRED: 1}


async def test_a_client_that_leaves_is_looked_after_no_more() -> None:
    async with open_harness(verifier=Issuer(2000)) as harness:
        client = harness.call()
        await client.upgrade("alice")
        assert len(harness.acceptor.expiry) == 1
        await client.stream.aclose()
        await harness.wait_served(1)
        assert len(harness.acceptor.expiry) == 0


async def test_a_right_without_an_end_needs_nobody_to_look_after_it() -> None:
    async with open_harness() as harness:
        await harness.call().upgrade("alice")
        assert len(harness.acceptor.expiry) == 0


async def test_a_review_judges_all_and_counts_those_who_end_by_it() -> None:
    async with open_harness(verifier=Issuer(None)) as harness:
        clients = [harness.call() for _ in range(3)]
        for client in clients:
            await client.upgrade("alice")
        judged: list[Identity] = []

        class Judge(Verifiers):
            def review(self, identity: Identity) -> Identity | None:
                judged.append(identity)
                return identity if len(judged) == 1 else None

        assert harness.acceptor.review(Judge([])) == 2
        assert len(judged) == 3
        assert harness.acceptor.review(Judge([])) == 1
        assert harness.acceptor.review(Judge([])) == 0
        for client in clients:
            await client.read_until(lambda _, client=client: client.frames[-1].opcode == CLOSE)
            assert client.frames[-1] == Frame(CLOSE, b"\x11\x97the token is no longer valid")
            await client.stream.aclose()
        await harness.wait_served(3)
        assert harness.acceptor.drops == {Drop.NOT_ALLOWED: 3}


# The server's stop


async def test_the_end_of_all_is_waited_for() -> None:
    async with open_harness() as harness:
        await harness.acceptor.end_all(RESTARTING)  # nobody is here: nothing to wait for
    async with open_harness() as harness:
        earlier = harness.call()
        await earlier.upgrade("earlier")
        await earlier.stream.send_eof()
        await harness.wait_served(1)
        clients = [harness.call() for _ in range(3)]
        for number, client in enumerate(clients):
            await client.upgrade(f"user-{number}")
        harness.acceptor.stop_reading()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.acceptor.end_all, RESTARTING)
            for client in clients:
                await client.read_until(lambda _, client=client: client.frames[-1].opcode == CLOSE)
                assert client.frames[-1] == Frame(CLOSE, b"\x03\xf4server is restarting")
                assert nursery.child_tasks
                await client.send(masked(CLOSE, b"\x03\xf4"))
        assert (harness.slots, harness.acceptor.drops) == (0, {Drop.RESTART: 3})


async def test_who_was_just_coming_in_when_all_were_told_does_not_stay() -> None:
    """Between being let in at the door and being known to the acceptor."""

    class Late(ChatSite):
        told: Acceptor

        def admit(self, vetted: Vetted[Identity], upgrade: Upgrade) -> Admission:
            admission = super().admit(vetted, upgrade)
            nursery.start_soon(self.told.end_all, RESTARTING)
            return admission

    async with open_harness(site=Late) as harness, trio.open_nursery() as nursery:
        harness.site.told = harness.acceptor  # type: ignore[attr-defined]
        client = harness.call()
        await client.send(handshake("/?token=token-alice"))
        await client.stream.send_eof()
        await harness.wait_served(1)
        assert (harness.slots, harness.acceptor.drops) == (0, {Drop.RESTART: 1})


async def test_who_comes_in_after_all_were_told_is_told_as_well() -> None:
    async with open_harness() as harness:
        await harness.acceptor.end_all(RESTARTING)
        client = harness.call()
        await client.send(handshake("/?token=token-alice"))
        await client.stream.send_eof()
        await harness.wait_served(1)
        assert (harness.slots, harness.acceptor.drops) == (0, {Drop.RESTART: 1})


# Who is at the other end


def test_a_peer_of_a_unix_socket_counts_as_near() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == UNIX_PEER
        assert UNIX_PEER.exempt


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_peer_on_this_machine_is_exempt_from_limits_by_address(family: int, host: str) -> None:
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listener, socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
        assert peer_of(accepted) == Peer(host, exempt=True)


def test_a_peer_that_is_gone_has_no_address() -> None:
    with socket.socket() as sock:
        assert peer_of(sock) == Peer("gone")


# Requests about rooms, and streams


def asking(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: a", "Authorization: Bearer token-alice", *headers)
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def posting(text: bytes, *headers: str) -> bytes:
    return asking("POST", "/rooms/general/messages", text, *headers)


async def test_requests_are_answered_and_take_no_slot() -> None:
    async with open_harness() as harness:
        member, client = harness.call(), harness.call()
        await member.upgrade("bob")
        await client.send(posting(b"deploy done"))
        assert b"201 Created" in await client.read_until(lambda data: b'"username":"anonymous"}' in data)
        await member.read_until(lambda data: b"deploy done" in data)
        assert (harness.slots, len(harness.acceptor.pending), len(harness.acceptor.pending.paused)) == (
            1,
            1,
            0,
        )
        await client.send(asking("GET", "/rooms/general/members"))
        await client.read_until(lambda data: b'{"members":["bob"]}' in data)
        await client.stream.aclose()
        await harness.wait_served(1)
        assert (harness.slots, len(harness.acceptor.pending)) == (1, 0)


async def test_a_request_under_way_counts_and_is_released_however_it_ends() -> None:
    engine = HeldEngine()
    async with open_harness(engine=engine) as harness:
        client = harness.call()
        await client.send(posting(b"x"))
        await trio.sleep(0.1)
        assert (harness.slots, len(harness.acceptor.pending), len(harness.acceptor.pending.paused)) == (
            1,
            0,
            1,
        )
        engine.go.set()
        await client.read_until(lambda data: b"201 Created" in data)
        assert (harness.slots, len(harness.acceptor.pending.paused)) == (0, 0)


async def test_a_stop_answers_the_requests_under_way() -> None:
    engine = HeldEngine()
    async with open_harness(engine=engine) as harness:
        client, late = harness.call(), harness.call()
        await client.send(posting(b"x"))
        await trio.sleep(0.1)
        harness.site.draining = True
        await late.send(posting(b"y"))
        assert b"503 Service Unavailable" in await late.read_until(lambda data: b"Restarting" in data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.acceptor.end_all, RESTARTING)
            await trio.sleep(0.1)
            assert nursery.child_tasks
            engine.go.set()
        assert b"201 Created" in await client.read_until(lambda data: b'"id":1' in data)
        assert b"Connection: close" in client.received


async def test_a_stream_counts_as_a_connection_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_harness() as harness:
        reader = harness.call()
        await reader.send(asking("GET", "/rooms/general/events?username=alice"))
        await reader.read_until(lambda data: b'"welcome"' in data)
        assert (harness.slots, len(harness.acceptor.pending)) == (1, 0)
        poster = harness.call()
        await poster.send(posting(b"hello"))
        await reader.read_until(lambda data: b'"text":"hello"' in data)
        await harness.acceptor.end_all(RESTARTING)
        assert (await reader.read_until(lambda _: False)).endswith(b"\n\n")
        assert b"\n: server is restarting\nretry: " in reader.received
        assert (harness.slots, harness.acceptor.drops) == (0, {Drop.RESTART: 1})
    said = {record.getMessage(): record.fields for record in caplog.records}
    assert said["stream"]["room"] == "general"
    assert said["stream_end"] == {
        "conn": "run-1",
        "username": "alice",
        "peer": "unix",
        "room": "general",
        "drop": "restart",
    }


async def test_a_stream_by_tls() -> None:
    async with open_harness(tls=True) as harness:
        client = harness.call()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.stream = trio.SSLStream(client.stream, context)  # type: ignore[assignment]
        await client.send(posting(b"hello"))
        await client.read_until(lambda data: b"201 Created" in data)
        await client.send(asking("GET", "/rooms/general/events"))
        await client.read_until(lambda data: b'"text":"hello"' in data)
        await harness.acceptor.end_all(RESTARTING)
        await client.read_to_end()
        assert b"retry: " in client.received


async def test_the_port_for_metrics_knows_no_rooms() -> None:
    async with open_harness() as harness:
        client = harness.call(serve=harness.acceptor.serve_metrics)
        await client.send(posting(b"x"))
        assert b"404 Not Found" in await client.read_until(lambda data: b"Not Found" in data)


async def test_operators_need_no_token_and_may_do_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_harness() as harness:
        client = harness.call(serve=harness.acceptor.serve_operator)
        body = b'{"action":"ban","username":"bob"}'
        path = "/rooms/general/moderation?token=wrong&username=alice"
        await client.send(asking("POST", path, body, "Content-Type: application/json"))
        await client.read_until(lambda data: b'"by":"alice"' in data)
        await client.send(asking("GET", "/rooms/general/moderation"))
        await client.read_until(lambda data: b'{"sanctions":[{"action":"ban"' in data)
        await client.send(posting(b"x"))
        await client.read_until(lambda data: b'"username":"operator"' in data)
        assert (harness.slots, len(harness.acceptor.pending), len(harness.acceptor.pending_operators)) == (
            0,
            0,
            1,
        )
        for target in ("/rooms/general/events", "/", "/?token=token-alice"):
            other = harness.call(serve=harness.acceptor.serve_operator)
            await other.send(asking("GET", target))
            await other.read_until(lambda data: b"\r\n\r\n" in data)
            assert other.received.startswith(b"HTTP/1.1 404 ")
    assert {record.fields["peer"] for record in caplog.records if record.getMessage() == "refused"} == {
        "admin"
    }


async def test_a_full_server_has_a_place_for_operators() -> None:
    async with open_harness() as harness:
        slots = [
            harness.connection_limits.take_slot(Peer("192.0.2.1", exempt=True), None)
            for _ in range(LIMITS.connections)
        ]
        stranger = harness.call()
        await stranger.send(posting(b"x"))
        await stranger.read_until(lambda data: b"503 Service Unavailable" in data)
        client = harness.call(serve=harness.acceptor.serve_operator)
        await client.send(posting(b"x"))
        await client.read_until(lambda data: b"201 Created" in data)
        for slot in slots:
            slot.release()


async def test_a_stop_answers_operators_and_takes_no_more_of_them() -> None:
    engine = HeldEngine()
    async with open_harness(engine=engine) as harness:
        client, late = (harness.call(serve=harness.acceptor.serve_operator) for _ in range(2))
        await client.send(posting(b"x"))
        await trio.sleep(0.1)
        harness.site.draining = True
        await late.send(posting(b"y"))
        await late.read_until(lambda data: b"Restarting" in data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.acceptor.end_all, RESTARTING)
            await trio.sleep(0.1)
            assert nursery.child_tasks
            engine.go.set()
        assert b"201 Created" in await client.read_until(lambda data: b'"id":1' in data)


async def test_an_exception_at_the_admin_socket_ends_that_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Response:
        raise Fault

    async with open_harness(metrics=fail) as harness:
        client = harness.call(serve=harness.acceptor.serve_operator)
        await client.send(asking("GET", "/metrics"))
        await client.read_to_end()
        assert "connection_failed" in [record.getMessage() for record in caplog.records]
