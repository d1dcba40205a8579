"""TLS over a transport, in memory: the client is Python's own, and decides what arrives and is taken when."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.core.limits import Limits
from chatroom.net.tls import _ARRIVED, _SEALED, TlsTransport
from chatroom.net.transport import SocketTransport
from chatroom.websocket.framing import close_frame, text_frame
from chatroom.websocket.outbound import Outbound
from tests.support.client_frames import CLOSE, read_frames
from tests.support.memory_transport import RECORD, MemoryTransport
from tests.support.process import ROOT

PEM = ROOT / "tests" / "support" / "localhost.pem"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
ANY = ssl.TLSVersion.MAXIMUM_SUPPORTED
MUCH = 1 << 40
SEALED = 16 * 1024 + 64  # a full record, with some bytes to spare
BLOB = bytes(range(256)) * 256

every_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    """Nothing is ever left in the buffers that all connections share: another one would take it."""
    yield
    assert not _SEALED.pending
    assert not _ARRIVED.pending


class Client:
    """The peer of one transport. What it says arrives at once, unless it is sealed for later."""

    def __init__(self, peer: MemoryTransport, version: ssl.TLSVersion = ANY) -> None:
        context = ssl.create_default_context(cafile=PEM)
        context.maximum_version = version
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._read = 0  # bytes of what the peer has taken

    def shake_hands(self) -> bool:
        """One step; true when it is done."""
        self.listen()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.peer.arrive(self._outgoing.read())
        return True

    def listen(self) -> None:
        self._incoming.write(self.peer.taken[self._read :])
        self._read = len(self.peer.taken)

    def seal(self, *texts: bytes) -> bytes:
        """A record for each text."""
        for text in texts:
            self.tls.write(text)
        return self._outgoing.read()

    def seal_end(self) -> bytes:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def say(self, *texts: bytes) -> None:
        self.peer.arrive(self.seal(*texts))

    def hear(self) -> bytes:
        """Everything that has come since the last time."""
        self.listen()
        data = b""
        with suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(1 << 16):
                data += piece
        return data

    def hears_end(self) -> bool:
        self.listen()
        try:
            return self.tls.read(10) == b""
        except ssl.SSLWantReadError:
            return False


def context() -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(PEM)
    return found


CONTEXT = context()


def new(version: ssl.TLSVersion = ANY) -> tuple[MemoryTransport, TlsTransport, Client]:
    peer = MemoryTransport()
    return peer, TlsTransport(peer, CONTEXT), Client(peer, version)


async def agree(transport: TlsTransport, client: Client) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.do_handshake)
        while not client.shake_hands():
            await wait_all_tasks_blocked()


async def agreed(version: ssl.TLSVersion = ANY) -> tuple[MemoryTransport, TlsTransport, Client]:
    peer, transport, client = new(version)
    await agree(transport, client)
    return peer, transport, client


def give(peer: MemoryTransport, room: int) -> None:
    """From now on there is this much room, and no more."""
    peer.room = 0
    peer.give_room(room)


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# The handshake


@every_version
async def test_a_handshake_in_single_bytes(version: ssl.TLSVersion) -> None:
    peer, transport, client = new(version)
    peer.most = lambda: 1
    arrive = peer.arrive
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.do_handshake)
        done = False
        while not done:
            said: list[bytes] = []
            peer.arrive = said.append  # type: ignore[method-assign]
            done = client.shake_hands()
            for byte in in_pieces(b"".join(said), 1):
                arrive(byte)
                await wait_all_tasks_blocked()
    peer.arrive = arrive  # type: ignore[method-assign]
    client.say(b"hello")
    assert await transport.receive_some(100) == b"hello"
    assert client.tls.version() == {v: f"TLSv{name}" for name, v in VERSIONS.items()}[version]


async def test_a_handshake_waits_for_a_peer_that_takes_its_time() -> None:
    peer, transport, client = new()
    give(peer, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.do_handshake)
        while not client.shake_hands():
            await wait_all_tasks_blocked()
            peer.give_room(100)
    client.say(b"hello")
    assert await transport.receive_some(100) == b"hello"


async def test_tickets_wait_for_the_first_data() -> None:
    """A client that sends and closes without having read them would reset what it sent."""
    peer, transport, client = await agreed(VERSIONS["1.3"])
    before = len(peer.taken)
    client.say(b"hello")
    assert transport.receive_nowait(100) == b"hello"
    assert len(peer.taken) == before
    assert (transport.held, transport.unsent()) == (False, 0)
    transport.send_nowait(b"x")
    assert len(peer.taken) > before + 400
    assert client.hear() == b"x"
    assert client.tls.session is not None
    assert client.tls.session.has_ticket


async def test_a_handshake_that_stalls_is_given_up_at_its_deadline(autojump_clock: MockClock) -> None:
    for after in range(3):  # moves of the client
        peer, transport, client = new()
        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.do_handshake)
                for _ in range(after):
                    await wait_all_tasks_blocked()
                    give(peer, 100)
                    client.shake_hands()
        assert scope.cancelled_caught
        transport.abort()
        assert (peer.aborted, transport.held) == (True, False)


@pytest.mark.parametrize("cut", [0, 1, 5, 6, 100])
async def test_a_peer_that_goes_in_the_handshake(cut: int) -> None:
    peer, transport, client = new()
    with suppress(ssl.SSLWantReadError):
        client.tls.do_handshake()
    peer.arrive(client._outgoing.read()[:cut])
    peer.arrive_end()
    with pytest.raises(ConnectionResetError):
        await transport.do_handshake()


@pytest.mark.parametrize(
    ("garbage", "answer"),
    [(b"\x16\x03\x01\x00\x05hello", b"\x15"), (b"GET / HTTP/1.1\r\n\r\n", b""), (b"what is this?", b"")],
    ids=["nearly", "http", "other"],
)
async def test_garbage_for_a_handshake_is_an_oserror(garbage: bytes, answer: bytes) -> None:
    peer, transport, _ = new()
    peer.arrive(garbage)
    with pytest.raises(ssl.SSLError):
        await transport.do_handshake()
    assert peer.taken[:1] == answer, "an alert, if it speaks TLS"


async def test_a_connection_that_breaks_in_the_handshake_is_an_oserror() -> None:
    peer, transport, client = new()
    client.shake_hands()
    give(peer, 10)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def shake_hands() -> None:
            with pytest.raises(ConnectionResetError):
                await transport.do_handshake()

        await wait_all_tasks_blocked()
        peer.fail()


# Sending


@every_version
@pytest.mark.parametrize("size", [0, 1, 108, RECORD - 1, RECORD, RECORD + 1, 64 * 1024])
async def test_what_there_is_room_for_goes_out_at_once(size: int, version: ssl.TLSVersion) -> None:
    _, transport, client = await agreed(version)
    for data in (BLOB[:size], memoryview(BLOB)[:size]):
        assert transport.send_nowait(data) == size
        assert (transport.held, transport.unsent()) == (False, 0)
        assert client.hear() == BLOB[:size]


async def test_the_rest_of_a_record_is_held_and_goes_out_first() -> None:
    peer, transport, client = await agreed()
    transport.send_nowait(b"tickets")
    for room in range(30):
        client.hear()
        give(peer, room)
        assert transport.send_nowait(b"first") == 5
        assert transport.held == (room < 27)
        assert not transport.confirmed() or not transport.held
        if transport.held:
            assert transport.unsent() == 27 - room
            peer.give_room(1 if room < 26 else 0)
            assert transport.send_nowait(b"too early") == 0
        assert client.hear() == (b"first" if not transport.held else b"")
        give(peer, MUCH)
        assert transport.send_nowait(b"") == 0
        assert not transport.held
        assert transport.send_nowait(b"second") == 6
        assert client.hear() == (b"second" if room >= 27 else b"firstsecond")


async def test_at_most_one_record_is_held() -> None:
    peer, transport, client = await agreed()
    give(peer, 0)
    assert transport.send_nowait(BLOB) == RECORD
    assert RECORD < transport.unsent() < SEALED + 1024  # the tickets are before it
    assert transport.send_nowait(BLOB[RECORD:]) == 0
    peer.give_room(SEALED + 1024)
    assert transport.send_nowait(BLOB[RECORD:]) == RECORD
    assert transport.held
    give(peer, MUCH)
    assert transport.send_nowait(BLOB[2 * RECORD :]) == 2 * RECORD
    assert client.hear() == BLOB


@every_version
@pytest.mark.parametrize("most", [1, 7, 1000, 20_000])
async def test_a_peer_that_takes_little_at_a_time_gets_everything(most: int, version: ssl.TLSVersion) -> None:
    peer, transport, client = await agreed(version)
    size = min(len(BLOB), most * 2000)
    peer.most = lambda: most
    sent, turns = 0, 0
    while sent < size or transport.held:
        sent += transport.send_nowait(BLOB[sent:size])
        turns += 1
    assert client.hear() == BLOB[:size]
    assert turns <= (size + 2000) // most + 10


async def test_a_send_that_waits_has_nothing_held_in_the_end() -> None:
    peer, transport, client = await agreed()
    give(peer, 10)
    sent: list[int] = []

    async def send() -> None:
        while sum(sent) < len(BLOB):
            sent.append(await transport.send_some(BLOB[sum(sent) :]))
            assert not transport.held

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while nursery.child_tasks:
            await wait_all_tasks_blocked()
            peer.give_room(5000)
    assert sent == [RECORD] * 4
    assert client.hear() == BLOB


async def test_cancelling_a_send_tears_nothing() -> None:
    peer, transport, client = await agreed()
    for room in (0, 1, 500, 5000):
        give(peer, room)
        with trio.move_on_after(0.001):
            await transport.send_some(BLOB[:RECORD])
        assert transport.held
        give(peer, 0)
        with trio.move_on_after(0.01) as scope:
            await transport.send_some(b"has taken nothing")
        assert scope.cancelled_caught
        give(peer, MUCH)
        await transport.send_some(b"next")
        assert client.hear() == BLOB[:RECORD] + b"next"


async def test_a_broken_connection_is_an_oserror_to_who_sends() -> None:
    peer, transport, _ = await agreed()
    peer.fail(ConnectionResetError)
    with pytest.raises(ConnectionResetError):
        transport.send_nowait(b"x")
    with pytest.raises(ConnectionResetError):
        transport.send_nowait(b"y")
    with pytest.raises(ConnectionResetError):
        await transport.send_some(b"y")


async def test_connections_do_not_mix() -> None:
    """In particular where one fails, or gets nothing out, between two steps of another."""
    others = [new() for _ in range(3)]
    peer, transport, client = new()
    async with trio.open_nursery() as nursery:
        for _, other, _ in [(peer, transport, client), *others]:
            nursery.start_soon(other.do_handshake)
        done = [False] * 4
        while not all(done):
            for number, (_, _, other) in enumerate([(peer, transport, client), *others]):
                done[number] = done[number] or other.shake_hands()
            await wait_all_tasks_blocked()
    (broken, failing, _), (full, slow, hearing), (_, leaving, left) = others
    give(full, 0)
    broken.arrive(bytes(50))
    for step in range(4):
        match step:
            case 0:
                slow.send_nowait(b"held")
            case 1:
                with pytest.raises(ssl.SSLError):
                    failing.receive_nowait(100)
            case 2:
                with pytest.raises(ssl.SSLError):
                    failing.send_nowait(b"x")
            case 3:
                await leaving.aclose()
        assert transport.send_nowait(b"%d" % step) == 1
        assert client.hear() == b"%d" % step
    full.give_room(1000)
    slow.send_nowait(b"")
    assert hearing.hear() == b"held"
    assert left.hears_end()


# Frames


FRAMES = [
    text_frame(b"%d" % number + b"x" * size) for number, size in enumerate((0, 5, 200, 9000, 30_000, 3))
]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=6), st.integers(0, 5))
def test_a_close_at_any_moment_comes_behind_whole_frames(rooms: list[int], when: int) -> None:
    async def main() -> None:
        peer, transport, client = await agreed()
        client.hear()
        out = Outbound(transport, lambda: None)
        give(peer, rooms[0])
        for number, frame in enumerate(FRAMES):
            if number == when:
                out.close(1012, "restarting")
            out.offer(frame, [len(frame)]) if number % 2 else out.put(frame)
            with trio.move_on_after(0.001):
                await out.flush()
            peer.give_room(rooms[number % len(rooms)])
        give(peer, MUCH)
        await out.flush()
        assert not out.pending
        frames, rest = read_frames(client.hear())
        assert rest == b""
        assert [frame.opcode for frame in frames][-1] == CLOSE
        texts = [frame.payload for frame in frames[:-1]]
        assert texts == sorted(texts, key=lambda text: text[0])
        assert len(texts) <= when

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_close_frame_behind_a_held_record() -> None:
    peer, transport, client = await agreed()
    out = Outbound(transport, lambda: None)
    out.put(text_frame(b"before"))
    for room in (0, 1, 20):
        give(peer, room)
        out.put(text_frame(b"held"))
        assert out.pending
    out.close(1012, "restarting")
    give(peer, MUCH)
    await out.flush()
    assert client.hear() == text_frame(b"before") + text_frame(b"held") + close_frame(1012, "restarting")


# Receiving


@every_version
@pytest.mark.parametrize("size", [1, 7, 1000, MUCH])
async def test_records_that_arrive_cut_anywhere(size: int, version: ssl.TLSVersion) -> None:
    peer, transport, client = await agreed(version)
    data = BLOB if size > 100 else BLOB[:700]
    got, nothing = b"", 0
    for piece in in_pieces(client.seal(data[:1], data[1:300], data[300:]), size):
        peer.arrive(piece)
        while (part := transport.receive_nowait(1 << 16)) is not None:
            assert part
            got += part
        nothing += 1
        assert not transport.buffered
    assert got == data
    assert len(peer.asked_for) < 40 + 3 * nothing + 3 * len(data) // 4096


async def test_small_reads_leave_the_rest_buffered() -> None:
    peer, transport, client = await agreed()
    client.say(b"hello", b"world")
    assert not transport.buffered
    got = []
    for left in (True, True, True, False):
        got.append(transport.receive_nowait(3))
        assert transport.buffered == left
    assert got == [b"hel", b"lo", b"wor", b"ld"]
    assert transport.receive_nowait(3) is None
    peer.arrive(client.seal(b"half")[:-1])
    assert transport.receive_nowait(3) is None
    assert not transport.buffered


async def test_what_is_buffered_is_told_since_nothing_arrives_for_it() -> None:
    _, transport, client = await agreed()
    got: list[bytes | None] = []

    def read() -> None:
        got.append(transport.receive_nowait(4))
        while transport.buffered and got[-1] != b"stop":
            got.append(transport.receive_nowait(4))
        if got[-1] == b"stop":
            transport.unwatch()

    transport.watch(read)
    client.say(b"one", b"two ", b"three", b"stop", b"rest", b"more")
    await wait_all_tasks_blocked()
    assert got == [b"one", b"two ", b"thre", b"e", b"stop"]
    assert transport.buffered
    with trio.fail_after(1):
        await transport.wait_readable()
    assert [transport.receive_nowait(10) for _ in range(3)] == [b"rest", b"more", None]


async def test_nobody_is_busy_while_a_record_is_not_whole() -> None:
    peer, transport, client = await agreed()
    got: list[bytes | None] = []
    transport.watch(lambda: got.append(transport.receive_nowait(100)))
    record = client.seal(b"x" * 50)
    for number, byte in enumerate(in_pieces(record, 1)):
        await wait_all_tasks_blocked()
        assert got == [None] * number
        peer.arrive(byte)
    await wait_all_tasks_blocked()
    assert got[-1] == b"x" * 50


async def test_a_record_is_read_in_small_pieces() -> None:
    """What OpenSSL hasn't read of them is copied at each step."""
    peer, transport, client = await agreed()
    client.say(*in_pieces(BLOB, RECORD))
    del peer.asked_for[:]
    got = b""
    while part := transport.receive_nowait(1 << 20):
        assert len(transport._unread) <= 4096
        got += part
    assert got == BLOB
    assert max(peer.asked_for) == 4096


@every_version
@pytest.mark.parametrize("garbage", [b"\x17\x03\x03\x00\x20" + bytes(32), b"what is this?", bytes(50)])
async def test_garbage_for_a_record_is_an_oserror_and_the_peer_is_told(
    garbage: bytes, version: ssl.TLSVersion
) -> None:
    peer, transport, client = await agreed(version)
    client.say(b"before")
    peer.arrive(garbage)
    assert transport.receive_nowait(100) == b"before"
    with pytest.raises(ssl.SSLError):
        transport.receive_nowait(100)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.hear()
    assert await transport.receive_some(100) == b""
    with pytest.raises(OSError):  # noqa: PT011
        transport.send_nowait(b"x")


async def test_what_was_read_stays_true_where_the_answer_to_it_cannot_be_sent() -> None:
    peer, transport, client = await agreed()
    client.say(b"last words")
    _SEALED.write(b"an alert")
    peer.send_nowait = _broken  # type: ignore[method-assign]
    assert transport.receive_nowait(100) == b"last words"
    with pytest.raises(BrokenPipeError):
        transport.send_nowait(b"x")


def _broken(_: bytes | memoryview) -> int:
    raise BrokenPipeError


async def test_a_peer_that_makes_tls_answer_and_does_not_read_is_given_up() -> None:
    peer, transport, client = await agreed()
    transport.send_nowait(b"tickets")
    give(peer, 0)
    _SEALED.write(bytes(64 * 1024))
    client.say(b"1", b"2")
    assert transport.receive_nowait(100) == b"1"
    assert transport.held
    _SEALED.write(b"!")
    with pytest.raises(OSError, match="doesn't read"):
        transport.receive_nowait(100)


# The end


@every_version
async def test_a_peer_that_says_goodbye_has_ended(version: ssl.TLSVersion) -> None:
    peer, transport, client = await agreed(version)
    client.say(b"last")
    peer.arrive(client.seal_end())
    assert transport.receive_nowait(100) == b"last"
    for _ in range(3):
        assert transport.receive_nowait(100) == b""
    assert await transport.receive_some(100) == b""
    assert transport.send_nowait(b"but I go on") == 11, "in both versions, since OpenSSL leaves it to us"


@every_version
@pytest.mark.parametrize("cut", [0, 1, 5, 10, -1, None])
async def test_a_peer_that_ends_without_a_word_has_ended_too(
    cut: int | None, version: ssl.TLSVersion
) -> None:
    peer, transport, client = await agreed(version)
    peer.arrive(client.seal(b"last")[:cut])
    peer.arrive_end()
    if cut is None:
        assert await transport.receive_some(100) == b"last"
    for _ in range(3):
        assert await transport.receive_some(100) == b""
        assert transport.receive_nowait(100) == b""


@every_version
async def test_a_half_close_leaves_receiving_open(version: ssl.TLSVersion) -> None:
    peer, transport, client = await agreed(version)
    client.say(b"on its way", b"too")
    assert transport.receive_nowait(100) == b"on its way"
    assert transport.send_nowait(b"bye") == 3
    await transport.send_eof()
    assert client.hear() == b"bye"
    assert client.hears_end()
    assert await transport.receive_some(100) == b"too"
    client.say(b"still here")
    assert await transport.receive_some(100) == b"still here"
    peer.arrive(client.seal_end())
    for _ in range(3):
        assert await transport.receive_some(100) == b""


async def test_a_half_close_in_the_middle_of_a_record_loses_nothing() -> None:
    """There is no goodbye then: OpenSSL could not go on."""
    _, transport, client = await agreed()
    client.say(b"hello", b"world")
    assert transport.receive_nowait(3) == b"hel"
    await transport.send_eof()
    for expected in (b"lo", b"world"):
        assert await transport.receive_some(100) == expected
    assert not client.hears_end()


async def test_a_half_close_waits_until_what_is_held_is_out() -> None:
    peer, transport, client = await agreed()
    give(peer, 0)
    transport.send_nowait(b"held")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send_eof)
        await wait_all_tasks_blocked()
        while nursery.child_tasks:
            peer.give_room(1)
            await wait_all_tasks_blocked()
    assert client.hear() == b"held"
    assert client.hears_end()


@every_version
async def test_a_close_says_goodbye(version: ssl.TLSVersion) -> None:
    peer, transport, client = await agreed(version)
    client.say(b"unread")
    transport.send_nowait(b"bye")
    await transport.aclose()
    assert peer.closed
    assert client.hear() == b"bye"
    assert client.hears_end()
    await transport.aclose()


@pytest.mark.parametrize("room", [0, 1, 30, 40])
async def test_a_close_waits_for_nobody(room: int) -> None:
    peer, transport, client = await agreed()
    transport.send_nowait(b"tickets")
    client.hear()
    give(peer, room)
    transport.send_nowait(b"held")
    with trio.fail_after(1):
        await transport.aclose()
    assert peer.closed
    assert client.hear() == (b"held" if room >= 26 else b"")


async def test_a_close_before_the_handshake() -> None:
    peer, transport, _ = new()
    await transport.aclose()
    assert peer.closed


async def test_a_close_of_a_broken_connection() -> None:
    peer, transport, _ = await agreed()
    peer.fail()
    await transport.aclose()
    assert peer.closed


# What Python's own client doesn't do


@asynccontextmanager
async def s_client(*options: str) -> AsyncIterator[tuple[trio.Process, TlsTransport]]:
    """OpenSSL's client, and us past the handshake."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to be the client")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", *options]
        pipe = subprocess.PIPE
        process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        accepted, _ = await trio.to_thread.run_sync(listener.accept)
    transport = TlsTransport(SocketTransport(accepted, Limits()), CONTEXT)
    try:
        with trio.fail_after(20):
            await transport.do_handshake()
            yield process, transport
    finally:
        transport.abort()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


async def told(process: trio.Process, transport: TlsTransport, *lines: bytes) -> bytes:
    """What comes of lines of a client that are said one by one, up to the last, which is no command."""
    assert process.stdin is not None
    for line in lines:
        await process.stdin.send_all(line)
        await trio.sleep(0.05)  # a command has to be alone in what s_client reads
    got = b""
    while not got.endswith(lines[-1]):
        piece = await transport.receive_some(1000)
        assert piece
        got += piece
    return got


async def printed(process: trio.Process, text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        piece = await process.stdout.receive_some(1000)
        assert piece, seen
        seen += piece


async def test_a_peer_may_change_the_keys() -> None:
    async with s_client("-tls1_3") as (process, transport):
        transport.send_nowait(b"welcome\n")
        await printed(process, b"welcome\n")
        assert await told(process, transport, b"one\n", b"k\n", b"two\n") == b"one\ntwo\n"
        assert await told(process, transport, b"K\n", b"three\n") == b"three\n"
        transport.send_nowait(b"by the new keys\n")
        await printed(process, b"by the new keys\n")


async def test_a_renegotiation_is_refused_and_nothing_hangs() -> None:
    async with s_client("-tls1_2") as (process, transport):
        assert await told(process, transport, b"one\n") == b"one\n"
        assert process.stdin is not None
        await process.stdin.send_all(b"R\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printed, process, b"no renegotiation")
            with suppress(OSError):  # OpenSSL's client gives up
                assert await transport.receive_some(1000) == b""


Step = Callable[[TlsTransport, Client], Awaitable[None]]


async def _nothing(_transport: TlsTransport, _client: Client) -> None:
    await trio.lowlevel.checkpoint()


async def _hold(transport: TlsTransport, client: Client) -> None:
    await agree(transport, client)
    give(client.peer, 5)
    transport.send_nowait(b"held")


async def _end(transport: TlsTransport, client: Client) -> None:
    await agree(transport, client)
    await transport.send_eof()


async def _close(transport: TlsTransport, client: Client) -> None:
    await agree(transport, client)
    await transport.aclose()


@pytest.mark.parametrize("before", [_nothing, agree, _hold, _end, _close])
async def test_an_abort_at_any_point(before: Step) -> None:
    peer, transport, client = new()
    await before(transport, client)
    transport.hang_up()
    transport.abort()
    assert (peer.hung_up, peer.aborted) == (True, True)
    assert (transport.held, transport.unsent()) == (False, 0)
