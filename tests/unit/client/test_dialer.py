"""Streams to a server, by real sockets and real TLS: what is trusted, and what is said of what isn't."""

import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatroom.client.address import WEBSOCKET, Place, read_url, trusting
from chatroom.client.connection import CLOSE_SECONDS, Client
from chatroom.client.cursor import Begin
from chatroom.client.dialer import HEAD_BYTES, Dialer, HandshakeStream, Unreachable, Untrusted
from chatroom.client.events import Ended, Ending, Entered, Event, Lost
from tests.support.process import ROOT
from tests.support.served_model import ServedModel

PEM = ROOT / "tests" / "support" / "localhost.pem"
NOW = datetime.datetime.now(datetime.UTC)
Answer = Callable[[trio.abc.Stream], Awaitable[None]]


async def silent(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def gone(stream: trio.abc.Stream) -> None:
    pass


async def reset(stream: trio.abc.Stream) -> None:
    """End the connection by a reset."""
    assert isinstance(stream, trio.SocketStream)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def saying(data: bytes) -> Answer:
    async def answer(stream: trio.abc.Stream) -> None:
        await stream.send_all(data)
        await trio.sleep_forever()

    return answer


@asynccontextmanager
async def listening(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Place]:
    """A server at a free port of this machine, with TLS if there is a `context`."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                if context is None:
                    await answer(stream)
                else:
                    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                    await secured.do_handshake()
                    await answer(secured)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield Place("localhost", port, secure=context is not None, schemes=WEBSOCKET)
        nursery.cancel_scope.cancel()


def serving(pem: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


def certificate(folder: Path, *, name: str = "localhost", days: tuple[int, int] = (-1, 1)) -> Path:
    """A certificate of its own authority, and its key: good from one day to the other, counted from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
    first, last = (NOW + datetime.timedelta(days=day) for day in days)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    return file


async def failing(place: Place, ca: Path | None = None, kind: type[Exception] = Untrusted) -> str:
    """What is said when the place is dialled in vain."""
    with trio.fail_after(20), pytest.raises(kind) as caught:
        await Dialer(place, trusting(str(ca) if ca else None) if place.secure else None).open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Unreachable


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_at_which_nobody_listens(host: str) -> None:
    place = Place(host, free_port(), schemes=WEBSOCKET)
    assert await failing(place, kind=Unreachable) == "Connection refused"


@pytest.mark.parametrize("host", ["nowhere.invalid", "255.255.255.256"])
async def test_a_name_that_is_not_found(host: str) -> None:
    said = await failing(Place(host, 80, schemes=WEBSOCKET), kind=Unreachable)
    assert said, "whatever the resolver says"
    assert "Errno" not in said


@pytest.mark.parametrize("answer", [gone, reset])
async def test_a_server_that_goes_at_once_while_tls_begins(answer: Answer) -> None:
    async with listening(answer) as place:
        said = await failing(place._replace(secure=True), PEM, Unreachable)
    assert said in {
        "TLS fails (it has closed)",
        "TLS fails (UNEXPECTED_EOF_WHILE_READING)",
        "Connection reset by peer",
    }


async def test_a_server_that_cannot_agree_on_tls() -> None:
    context = serving(PEM)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = trusting(str(PEM))
    ours.minimum_version = ssl.TLSVersion.TLSv1_3
    async with listening(silent, context) as place:
        with pytest.raises(Unreachable, match=r"^TLS fails \([A-Z0-9_]+\)$"):
            await Dialer(place, ours).open()


async def test_a_server_that_says_nothing_while_tls_begins_is_waited_for_by_whoever_dials() -> None:
    async with listening(silent) as place:
        with trio.move_on_after(0.2) as scope:
            await Dialer(place._replace(secure=True), trusting(str(PEM))).open()
        assert scope.cancelled_caught


# Trust


async def test_a_certificate_of_an_authority_that_is_named_is_trusted() -> None:
    async with listening(saying(b"hello"), serving(PEM)) as place:
        for host in ("localhost", "127.0.0.1"):
            async with await Dialer(place._replace(host=host), trusting(str(PEM))).open() as stream:
                assert await stream.receive_some() == b"hello"


async def test_a_certificate_of_an_authority_that_nobody_named_is_not() -> None:
    async with listening(silent, serving(PEM)) as place:
        said = await failing(place)
    assert said.startswith("its certificate isn't trusted (self-signed certificate")
    assert said.endswith("): --ca names other authorities")


async def test_a_certificate_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    async with listening(silent, serving(PEM)) as place:
        assert "isn't trusted (self-signed certificate" in await failing(place, certificate(tmp_path))


@pytest.mark.parametrize("days", [(-3, -1), (1, 3)])
async def test_a_certificate_at_another_time_is_not_trusted(tmp_path: Path, days: tuple[int, int]) -> None:
    file = certificate(tmp_path, days=days)
    async with listening(silent, serving(file)) as place:
        said = await failing(place, file)
    what = "has expired" if days[0] < 0 else "is not yet valid"
    assert said == f"its certificate isn't trusted (certificate {what})"


async def test_a_certificate_of_another_host_is_not_trusted(tmp_path: Path) -> None:
    file = certificate(tmp_path, name="chat.example")
    async with listening(silent, serving(file)) as place:
        said = await failing(place, file)
        assert (
            said
            == "its certificate isn't trusted (Hostname mismatch, certificate is not valid for 'localhost')"
        )
        said = await failing(place._replace(host="127.0.0.1"), file)
        assert (
            said
            == "its certificate isn't trusted (IP address mismatch, certificate is not valid for '127.0.0.1')"
        )


@pytest.mark.parametrize(
    "answer",
    [
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        saying(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        saying(b"\x00" * 100),
    ],
)
async def test_what_answers_without_tls_is_not_trusted(answer: Answer) -> None:
    async with listening(answer) as place:
        said = await failing(place._replace(secure=True), PEM)
    assert said == "what answers there doesn't speak TLS: is it ws:// instead of wss://?"


async def test_nothing_is_sent_to_who_is_not_trusted() -> None:
    received = []

    async def listen(stream: trio.abc.Stream) -> None:
        received.append(await stream.receive_some())

    async with listening(listen, serving(PEM)) as place:
        await failing(place)
        await trio.sleep(0.1)
    assert not any(received)


# Requests


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("ws://chat.example", "chat.example", ""),
        ("ws://chat.example:80/", "chat.example", ""),
        ("wss://chat.example:443/chat", "chat.example", "/chat"),
        ("ws://[::1]:3000/a/b/", "[::1]:3000", "/a/b"),
        ("wss://127.0.0.1:80", "127.0.0.1:80", ""),
    ],
)
def test_what_requests_begin_with(url: str, host: str, path: str) -> None:
    dialer = Dialer(read_url(url, schemes=WEBSOCKET), None)
    assert (dialer.host_header, dialer.path) == (host, path)


# The stream of a handshake


async def test_a_handshake_ends_when_no_answer_can_come() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = HandshakeStream(ours)
    await theirs.aclose()
    with trio.fail_after(5), stream.shaking_hands(60) as scope:
        assert await stream.receive_some() == b""
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_handshake_ends_when_its_request_cannot_be_sent() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = HandshakeStream(ours)
    await theirs.aclose()
    with trio.fail_after(5), stream.shaking_hands(60) as scope:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"hello")
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_handshake_ends_when_its_answer_is_too_long() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = HandshakeStream(ours)
    await theirs.send_all(b"HTTP/1.1 200 OK\r\n" + b"x" * HEAD_BYTES)
    with trio.fail_after(5), stream.shaking_hands(60) as scope:
        while True:
            assert await stream.receive_some(1000)
    assert scope.cancelled_caught
    assert stream.status == 200


async def test_behind_a_handshake_a_stream_is_as_long_as_it_likes() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = HandshakeStream(ours)
    with stream.shaking_hands(60):
        await stream.send_all(b"hello")
        await stream.wait_send_all_might_not_block()
    assert await theirs.receive_some() == b"hello"
    await theirs.send_all(b"x" * (2 * HEAD_BYTES))
    received = 0
    while received < 2 * HEAD_BYTES:
        received += len(await stream.receive_some())
    await theirs.aclose()
    assert await stream.receive_some() == b""
    await stream.aclose()


@pytest.mark.parametrize(
    ("head", "status", "tls"),
    [
        (b"HTTP/1.1 401 Unauthorized", 401, False),
        (b"HTTP/1.0 200", 200, False),
        (b"HTTP/1.1 101 Switching Protocols", None, False),
        (b"HTTP/2.0 200 OK", None, False),
        (b"http/1.1 200 OK", None, False),
        (b"\x15\x03\x01\x00\x02\x02\x50", None, True),
        (b"", None, False),
    ],
)
async def test_what_an_answer_is_can_be_told_by_its_first_bytes(
    head: bytes, status: int | None, tls: bool
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = HandshakeStream(ours)
    for byte in head:
        await theirs.send_all(bytes([byte]))
        await stream.receive_some()
    assert (stream.status, stream.speaks_tls) == (status, tls)


# A client by real sockets


@asynccontextmanager
async def client_of(place: Place, ca: Path | None) -> AsyncIterator[tuple[Client, list[Event]]]:
    """A client that runs; it is stopped behind the test."""
    shown: list[Event] = []

    async def handle(event: Event) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(event)

    dialer = Dialer(place, trusting(str(ca)) if ca else None)
    client = Client(dialer, lambda: "t", room="general", username=None, begin=Begin.FIRST)
    ended = trio.Event()

    async def run() -> None:
        await client.run(handle)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield client, shown
        client.stop()
        with trio.fail_after(CLOSE_SECONDS + 2):
            await ended.wait()


async def until(shown: list[Event], *kinds: type[Event]) -> Event:
    """Wait until one of this kind has been shown."""
    with trio.fail_after(20):
        while True:
            for event in shown:
                if isinstance(event, kinds):
                    return event
            await trio.sleep(0.01)


@pytest.mark.parametrize("ca", [None, PEM])
async def test_a_client_is_let_in(ca: Path | None) -> None:
    served = ServedModel()
    async with listening(served, serving(PEM) if ca else None) as place, client_of(place, ca) as (_, shown):
        await until(shown, Entered)


@pytest.mark.parametrize("ca", [None, PEM])
async def test_a_client_comes_back_after_a_reset(ca: Path | None) -> None:
    served = ServedModel()
    async with listening(served, serving(PEM) if ca else None) as place, client_of(place, ca) as (_, shown):
        await until(shown, Entered)
        stream = served.connection.websocket._stream
        await reset(stream if ca is None else stream.transport_stream)
        await served.connection.vanish()
        await until(shown, Lost)
        shown.clear()
        await until(shown, Entered)


async def test_a_client_without_tls_at_a_port_with_tls_is_not_let_in() -> None:
    async with (
        listening(silent, serving(PEM)) as place,
        client_of(place._replace(secure=False), None) as (_, shown),
    ):
        lost = await until(shown, Lost)
        assert isinstance(lost, Lost)
        assert lost.reason == "it doesn't answer the handshake"


async def test_a_client_that_is_told_so_by_tls_ends() -> None:
    alert = b"\x15\x03\x01\x00\x02\x02\x16"
    async with listening(saying(alert)) as place, client_of(place, None) as (_, shown):
        ended = await until(shown, Ended)
    assert ended == Ended(Ending.ALIEN, "what answers there speaks TLS: is it wss:// instead of ws://?")


@pytest.mark.parametrize("answer", [gone, reset])
async def test_a_client_keeps_trying_where_a_server_goes_at_once(answer: Answer) -> None:
    async with listening(answer) as place, client_of(place, None) as (_, shown):
        lost = await until(shown, Lost)
        assert isinstance(lost, Lost)
        assert lost.reason == "it doesn't answer the handshake"


@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_that_waits_for_a_silent_server_can_be_stopped(secure: bool) -> None:
    async with listening(silent) as place, client_of(place._replace(secure=secure), PEM if secure else None):
        await trio.sleep(0.2)
