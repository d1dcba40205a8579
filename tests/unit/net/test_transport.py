"""Transports, on real sockets: loopback TCP, Unix and TLS."""

import errno
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.core.limits import Limits
from chatroom.net.poller import ReadPoller, make_poller
from chatroom.net.tls import TlsTransport
from chatroom.net.transport import SocketTransport, Stalled, Transport
from tests.support.process import ROOT

LIMITS = Limits(send_timeout=10.0, ping_interval=20.0, ping_timeout=15.0)
PEM = ROOT / "tests" / "support" / "localhost.pem"
BLOB = b"".join(struct.pack("!I", number) for number in range(1 << 20))


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """An accepted stream and its client, with small buffers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = trio.socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.connect(listener.getsockname())
        accepted, _ = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return trio.SocketStream(trio.socket.from_stdlib_socket(accepted)), trio.SocketStream(client)


def detached(stream: trio.SocketStream) -> socket.socket:
    """The socket of an accepted stream, which is of no use afterwards."""
    return socket.socket(fileno=stream.socket.detach())


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    await trio.lowlevel.checkpoint()
    ours, theirs = trio.socket.socketpair()
    return trio.SocketStream(ours), trio.SocketStream(theirs)


PAIRS = {"tcp": tcp_pair, "unix": unix_pair}


@asynccontextmanager
async def watching() -> AsyncIterator[ReadPoller]:
    async with trio.open_nursery() as nursery:
        poller = make_poller()
        nursery.start_soon(poller.run)
        yield poller
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def plain(kind: str = "tcp") -> AsyncIterator[tuple[SocketTransport, trio.SocketStream]]:
    stream, client = await PAIRS[kind]()
    async with watching() as poller:
        transport = SocketTransport(detached(stream), LIMITS, poller)
        try:
            yield transport, client
        finally:
            transport.abort()
            client.socket.close()


@asynccontextmanager
async def tls(below: str = "tcp") -> AsyncIterator[tuple[TlsTransport, "trio.SSLStream[trio.SocketStream]"]]:
    stream, raw = await PAIRS[below]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    trusting = ssl.create_default_context(cafile=PEM)
    client = trio.SSLStream(raw, trusting, server_hostname="localhost", https_compatible=True)
    async with watching() as poller:
        transport = TlsTransport(SocketTransport(detached(stream), LIMITS, poller), context)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                await transport.do_handshake()
            yield transport, client
        finally:
            transport.abort()
            raw.socket.close()


async def read(client: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await client.receive_some(size - len(data))
        assert piece, "the stream ended early"
        data += piece
    return data


def socket_of(client: "trio.SocketStream | trio.SSLStream[trio.SocketStream]") -> trio.SocketStream:
    return client.transport_stream if isinstance(client, trio.SSLStream) else client


async def send_all(transport: Transport, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await transport.send_some(view) :]


# Sending


@pytest.mark.parametrize("kind", PAIRS)
async def test_what_the_socket_takes_at_once_is_counted_and_arrives_in_order(kind: str) -> None:
    async with plain(kind) as (transport, client):
        sent, partial_sends = 0, 0
        got = b""
        while sent < len(BLOB) // 8:
            taken = transport.send_nowait(BLOB[sent : sent + 100_000])
            partial_sends += 0 < taken < 100_000
            sent += taken
            if not taken:
                await transport_is_full(transport)
                got += await client.receive_some(1 << 20)
        got += await read(client, sent - len(got))
        assert partial_sends > 1, "part of a send is the normal case"
        assert got == BLOB[:sent]


async def transport_is_full(transport: SocketTransport) -> None:
    with trio.move_on_after(0) as scope:
        await transport.wait_room()
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_sending_waits_for_room(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client), trio.open_nursery() as nursery:
        nursery.start_soon(send_all, transport, BLOB)
        assert await read(client, len(BLOB)) == BLOB


@pytest.mark.parametrize("kind", PAIRS)
async def test_a_cancelled_send_has_taken_nothing(kind: str) -> None:
    async with plain(kind) as (transport, client):
        sent = 0
        while taken := transport.send_nowait(BLOB[sent : sent + 50_000]):
            sent += taken
        with trio.move_on_after(0.01) as scope:
            await transport.send_some(BLOB[sent:])
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, transport, BLOB[sent : sent + 10])
            assert await read(client, sent + 10) == BLOB[: sent + 10]


# Progress. Unix sockets, since TCP's own timers don't follow the virtual clock.


@pytest.mark.parametrize("kind", ["unix", "tls"])
async def test_a_peer_that_takes_nothing_is_stalled(kind: str, autojump_clock: MockClock) -> None:
    async with tls("unix") if kind == "tls" else plain("unix") as (transport, _client):
        with pytest.raises(Stalled, match="10 seconds"):
            await send_all(transport, BLOB)
        assert trio.current_time() == pytest.approx(10.0)


@pytest.mark.parametrize("kind", ["unix", "tls"])
async def test_a_slow_reader_that_moves_is_kept(kind: str, autojump_clock: MockClock) -> None:
    async def read_slowly(client: trio.abc.ReceiveStream) -> None:
        while True:
            await trio.sleep(9)
            await read(client, 64 * 1024)

    context = tls("unix") if kind == "tls" else plain("unix")
    async with context as (transport, client), trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, client)
        await send_all(transport, BLOB[: 1 << 20])
        nursery.cancel_scope.cancel()
    assert trio.current_time() > 90


async def test_what_the_kernel_hands_on_is_progress(autojump_clock: MockClock) -> None:
    """Room for a send may take long to open, while the peer's kernel confirms byte by byte."""

    class Draining(SocketTransport):
        looks = 0

        def unsent(self) -> int:
            self.looks += 1
            return max(0, 50 - self.looks)

        async def _writable(self) -> None:
            await trio.sleep_forever()

    stream, client = await tcp_pair()
    transport = Draining(detached(stream), LIMITS)
    with pytest.raises(Stalled):
        await transport.wait_room()
    assert trio.current_time() == pytest.approx(49 + 10.0)
    transport.abort()
    client.socket.close()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_unsent_counts_what_the_peer_has_not_confirmed(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client):
        assert transport.unsent() == 0
        with trio.move_on_after(0.01):
            await send_all(transport, BLOB)
        held = transport.unsent()
        assert held > 0
        await socket_of(client).receive_some(1 << 20)
        await trio.sleep(0.05)
        assert transport.unsent() < held
        transport.abort()
        assert transport.unsent() == 0


# Receiving, and the end


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_receiving_until_the_end(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client):
        await client.send_all(b"hello")
        assert await transport.receive_some(3) == b"hel"
        assert await transport.receive_some(3) == b"lo"
        await client.aclose()
        assert await transport.receive_some(3) == b""


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_receiving_without_waiting(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client):
        assert transport.receive_nowait(10) is None
        await client.send_all(b"hello")
        with trio.fail_after(5):
            await transport.wait_readable()
        assert transport.receive_nowait(3) == b"hel"
        assert transport.buffered == (kind == "tls")
        assert transport.receive_nowait(3) == b"lo"
        assert not transport.buffered
        await client.aclose()
        await transport.wait_readable()
        assert transport.receive_nowait(3) == b""


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_what_comes_is_called_for_while_it_is_watched(kind: str) -> None:
    context = tls() if kind == "tls" else plain(kind)
    async with context as (transport, client):
        got: list[bytes | None] = []
        with trio.fail_after(5):
            transport.watch(lambda: got.append(transport.receive_nowait(10)))
            for data in (b"one", b"two"):
                await client.send_all(data)
                while got[-1:] != [data]:
                    await trio.lowlevel.checkpoint()
            transport.unwatch()
            await client.send_all(b"three")
            await transport.wait_readable()
        assert got == [b"one", b"two"]
        assert transport.receive_nowait(10) == b"three"


async def test_a_tls_peer_that_says_goodbye_ends_the_stream_too() -> None:
    async with tls() as (transport, client), trio.open_nursery() as nursery:
        nursery.start_soon(client.unwrap)
        assert await transport.receive_some(10) == b""
        await transport.aclose()


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_end_of_sending_leaves_receiving_open(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client):
        await transport.wait_room()
        await transport.send_some(b"bye")
        await transport.send_eof()
        assert await read(client, 3) == b"bye"
        assert await client.receive_some(10) == b""
        if kind != "tls":  # after an end trio's TLS client can't be used any more
            await client.send_all(b"still here")
            assert await transport.receive_some(100) == b"still here"


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_hanging_up_wakes_the_receiver(kind: str) -> None:
    async def receive(transport: Transport) -> None:
        assert await transport.receive_some(10) == b""

    async with tls() if kind == "tls" else plain(kind) as (transport, _client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, transport)
            await wait_all_tasks_blocked(0.01)
            transport.hang_up()
        transport.hang_up()


async def test_an_abort_resets_and_a_close_does_not() -> None:
    async with plain() as (transport, client):
        transport.send_nowait(b"x")
        transport.abort()
        transport.abort()
        with pytest.raises(trio.BrokenResourceError):
            await read(client, 10)
    async with plain() as (transport, client):
        transport.send_nowait(b"x")
        await transport.aclose()
        assert await client.receive_some(10) == b"x"
        assert await client.receive_some(10) == b""


async def test_a_tls_close_says_goodbye() -> None:
    async with tls() as (transport, client):
        await transport.aclose()
        assert await client.receive_some(10) == b""
        await transport.aclose()
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await transport.receive_some(10)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_after_the_end_everything_is_an_oserror(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, _client):
        transport.abort()
        transport.hang_up()
        with pytest.raises(OSError):  # noqa: PT011 - which one is the platform's
            transport.send_nowait(b"x")
        for wait in (
            partial(transport.send_some, b"x"),
            transport.wait_room,
            transport.wait_readable,
            partial(transport.receive_some, 10),
            transport.send_eof,
        ):
            with pytest.raises(OSError):  # noqa: PT011
                await wait()


@pytest.mark.parametrize("kind", [*PAIRS, "tls"])
async def test_closing_under_a_waiting_task_is_an_oserror(kind: str) -> None:
    async def receive(transport: Transport) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await transport.receive_some(10)
        assert caught.value.errno == errno.EBADF

    async def send(transport: Transport) -> None:
        with pytest.raises(OSError):  # noqa: PT011
            await send_all(transport, BLOB)

    context = tls() if kind == "tls" else plain(kind)
    async with context as (transport, _client), trio.open_nursery() as nursery:
        nursery.start_soon(receive, transport)
        nursery.start_soon(send, transport)
        await wait_all_tasks_blocked(0.01)
        transport.abort()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_reset_is_an_oserror(kind: str) -> None:
    async with tls() if kind == "tls" else plain(kind) as (transport, client):
        raw = socket_of(client)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.socket.close()
        with pytest.raises(OSError):  # noqa: PT011
            await transport.receive_some(10)
        with pytest.raises(OSError):  # noqa: PT011
            await send_all(transport, BLOB)


async def test_a_failed_handshake_is_an_oserror() -> None:
    stream, client = await tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    transport = TlsTransport(SocketTransport(detached(stream), LIMITS), context)
    await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(OSError, match="HTTP_REQUEST"):
        await transport.do_handshake()
    transport.abort()
    client.socket.close()


# One socket object, no alias


@pytest.mark.parametrize("kind", PAIRS)
async def test_taking_a_socket_leaves_no_second_descriptor(kind: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with plain(kind) as (transport, _client):  # two ends, and the descriptor of what watches them
        assert len(os.listdir("/proc/self/fd")) == before + 3
        transport.abort()
        assert len(os.listdir("/proc/self/fd")) == before + 2


async def test_after_closing_nothing_reaches_who_got_the_descriptor_next() -> None:
    stream, client = await tcp_pair()
    number = stream.socket.fileno()
    transport = SocketTransport(detached(stream), LIMITS)
    transport.abort()
    ours, strangers = socket.socketpair()
    with ours, strangers, client.socket:
        assert number in (ours.fileno(), strangers.fileno()), "the number is in use again"
        with pytest.raises(OSError, match="descriptor"):
            transport.send_nowait(b"not for you")
        with pytest.raises(OSError):  # noqa: PT011
            await transport.send_some(b"not for you")
        for end in (ours, strangers):
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(10)


async def test_options_of_a_tcp_socket() -> None:
    stream, client = await tcp_pair()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    number = stream.socket.fileno()
    transport = SocketTransport(detached(stream), LIMITS)
    with socket.socket(fileno=os.dup(number)) as view:
        assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 35_000
        assert not os.get_blocking(number)
    transport.abort()
    client.socket.close()


async def test_a_platform_without_a_user_timeout_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    async with plain() as (transport, client):
        assert transport.send_nowait(b"x") == 1
        assert await read(client, 1) == b"x"
