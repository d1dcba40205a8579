"""Wire: what the library sees and what the inlet, the keepalive, and how a connection ends."""

import gc
import socket
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from struct import pack

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from chatroom.adapters.transport import SocketTransport, Stalled
from chatroom.adapters.wire import Wire
from chatroom.pure.frames import ping_frame, text_frame
from chatroom.pure.pulse import Silent
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect
from chatroom.values.limits import Limits
from tests.support.client_frames import (
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    Frame,
    head,
    masked,
    read_frames,
)
from tests.support.inlets import Letterbox
from tests.support.memory_transport import MemoryTransport

LIMITS = Limits(
    frame_bytes=1000,
    frame_fragments=8,
    frame_seconds=10.0,
    control_rate=50,
    ping_interval=20.0,
    ping_timeout=15.0,
)
CONTINUATION = 0


class Peer(MemoryTransport):
    """The client of one Wire, and what the Wire told its connection."""

    def __init__(self, *, room: int = 1 << 40, direct: bool = True) -> None:
        super().__init__(room=room, direct=direct)
        self.asked = 0
        self.faults: list[Disconnect] = []
        self.closed_early = False  # before the handshake was answered
        self.inlet = Letterbox()

    def ask(self) -> None:
        self.asked += 1

    def wire(self, *, initial: bytes = b"", limits: Limits = LIMITS, binary: bool = False) -> Wire:
        wire = Wire(
            self, limits, initial=initial, on_pending=self.ask, on_fault=self.faults.append, binary=binary
        )
        wire.deliver_to(self.inlet)
        return wire

    @property
    def frames(self) -> list[Frame]:
        """What came after the 101, if there was one."""
        got = bytes(self.taken)
        if got.startswith(b"HTTP/1.1 101"):
            got = got.partition(b"\r\n\r\n")[2]
        frames, rest = read_frames(got)
        assert not rest
        return frames


@asynccontextmanager
async def library(
    peer: Peer, *, trailing: bytes = b"", limits: Limits = LIMITS
) -> AsyncIterator[tuple[Wire, WebSocketConnection]]:
    """trio-websocket over a Wire, past its handshake."""
    wire = peer.wire(initial=HANDSHAKE + trailing, limits=limits)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, wire, 16, 1 << 62, 64 * 1024)
        yield wire, await request.accept()
        nursery.cancel_scope.cancel()


async def read_all(wire: Wire, seconds: float = 0.01) -> bytes:
    """Read until nothing moves any more or the end is read; what the library got of it."""
    data = b""
    with trio.move_on_after(seconds):
        while piece := await wire.receive_some():
            data += piece
    return data


async def end_of(connection: WebSocketConnection) -> int:
    """Read messages until the library says with which code it is over."""
    while True:
        try:
            await connection.get_message()
        except ConnectionClosed as closed:
            return code_of(closed)


def code_of(closed: ConnectionClosed) -> int:
    assert closed.reason is not None
    return closed.reason.code


# What the library sees, what the inlet, and when


async def test_the_handshake_comes_first_and_the_rest_after_it_is_accepted() -> None:
    peer = Peer()
    wire = peer.wire(initial=HANDSHAKE + masked(TEXT, b"early") + masked(PING))
    peer.arrive(masked(TEXT, b"later") + masked(PONG))
    assert await wire.receive_some(64 * 1024) == HANDSHAKE
    with trio.move_on_after(0.01) as scope:
        await wire.receive_some()
    assert scope.cancelled_caught, "nothing before the library has accepted"
    assert not peer.inlet.messages
    await wire.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert await wire.receive_some() == masked(PING)
    assert peer.inlet.empty() == ["early"]
    assert await wire.receive_some() == masked(PONG)
    assert peer.inlet.empty() == ["later"]


async def test_bytes_sent_along_with_the_handshake_are_not_lost() -> None:
    peer = Peer()
    peer.arrive(masked(TEXT, b"third"))
    trailing = masked(TEXT, b"first") + masked(TEXT, b"second")[:4]
    wire = peer.wire(initial=HANDSHAKE + trailing)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, wire, 16, 1000, 64 * 1024)
        await wait_all_tasks_blocked()  # the library's reader asks for more before it is accepted
        peer._arrived[:0] = masked(TEXT, b"second")[4:]
        await request.accept()
        assert [await peer.inlet.get() for _ in range(3)] == ["first", "second", "third"]
        nursery.cancel_scope.cancel()


async def test_without_an_initial_handshake_everything_is_read() -> None:
    peer = Peer()
    peer.arrive(masked(TEXT, b"a") + masked(PING))
    assert await peer.wire().receive_some() == masked(PING)
    assert peer.inlet.empty() == ["a"]


async def test_the_library_sees_control_frames_one_by_one_and_no_message() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"a", fin=False) + masked(PING, b"1") + masked(CONTINUATION, b"b"))
    peer.arrive(masked(PONG, b"2") + masked(PING, b"3")[:5])
    assert await wire.receive_some() == masked(PING, b"1")
    assert not peer.inlet.messages
    assert await wire.receive_some() == masked(PONG, b"2")
    assert peer.inlet.empty() == ["ab"]
    peer.arrive(masked(PING, b"3")[5:] + masked(CLOSE) + masked(PING, b"4") + masked(TEXT, b"c"))
    assert await wire.receive_some() == masked(PING, b"3")
    assert not wire.peer_closed
    assert await wire.receive_some() == masked(CLOSE)
    assert wire.peer_closed
    assert await wire.receive_some() == b""
    assert not peer.inlet.messages
    assert peer.inlet.closed


async def test_how_much_is_read_at_a_time() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(PING))
    await wire.receive_some(10)
    peer.arrive(masked(PING))
    await wire.receive_some()
    wire.paced = True
    peer.arrive(masked(PING))
    await wire.receive_some(64 * 1024)
    assert peer.asked_for == [10, 64 * 1024, 4096]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "tls"])
async def test_a_crowded_inlet_is_not_given_more_and_the_socket_not_read(direct: bool) -> None:
    peer = Peer(direct=direct)
    peer.inlet.room = 3
    wire = peer.wire()
    peer.arrive(b"".join(masked(TEXT, b"%d" % number) for number in range(7)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, wire, 1e6)
        await wait_all_tasks_blocked()
        assert list(peer.inlet.messages) == ["0", "1", "2"]
        read = len(peer.asked_for)
        peer.arrive(masked(TEXT, b"7"))
        await wait_all_tasks_blocked()
        assert len(peer.asked_for) == read
        found = [await peer.inlet.get() for _ in range(8)]
        assert found == [str(number) for number in range(8)]
        assert len(peer.asked_for) > read
        nursery.cancel_scope.cancel()


async def test_a_crowd_is_no_crowd_before_there_is_one_more() -> None:
    """A ping behind the last message that there is room for is answered."""
    peer = Peer()
    peer.inlet.room = 3
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"waits") * 3 + masked(PING, b"answer me") + masked(TEXT, b"too many"))
    with trio.fail_after(5):
        assert await wire.receive_some() == masked(PING, b"answer me")
    assert await read_all(wire) == b""
    assert peer.inlet.empty() == ["waits"] * 3


async def test_the_end_of_the_stream_is_seen_once_and_again() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"last words") + masked(TEXT, b"never finished")[:9])
    peer.arrive_end()
    assert [await wire.receive_some(), await wire.receive_some()] == [b"", b""]
    assert wire.ended
    assert peer.inlet.empty() == ["last words"]
    assert peer.inlet.closed
    assert not peer.faults


async def test_a_broken_connection_is_the_error_that_the_library_knows() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.fail(ConnectionResetError)
    with pytest.raises(trio.BrokenResourceError):
        await wire.receive_some()
    assert wire.broken
    assert peer.inlet.closed
    assert peer.asked == 1, "the writer is told"
    assert await wire.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"x")


async def test_a_broken_way_out_ends_the_way_in() -> None:
    class HalfBroken(Peer):
        def send_nowait(self, data: bytes | memoryview) -> int:
            raise BrokenPipeError

    peer = HalfBroken()
    wire = peer.wire()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with trio.fail_after(5):
                assert await wire.receive_some() == b""

        await wait_all_tasks_blocked()
        assert wire.offer(text_frame(b"x"), [3]) == 0
    assert wire.broken
    assert peer.inlet.closed


async def test_what_was_read_when_the_way_out_broke_is_handed_on() -> None:
    class HalfBroken(Peer):
        def send_nowait(self, data: bytes | memoryview) -> int:
            raise BrokenPipeError

    peer = HalfBroken()
    wire = peer.wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, wire)
        await wait_all_tasks_blocked()
        peer.arrive(masked(TEXT, b"one") + masked(TEXT, b"two"))
        wire.offer(text_frame(b"x"), [3])
    assert wire.broken
    assert peer.inlet.empty() == ["one", "two"]
    assert peer.inlet.closed


async def test_after_the_library_has_let_go_it_reads_the_end() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"unread"))
    await wire.aclose()
    assert peer.inlet.closed
    assert await wire.receive_some() == b""
    assert not peer.inlet.messages
    assert not any((peer.closed, peer.aborted, peer.hung_up)), "the socket is not the library's to close"


# Limits


async def test_a_fault_is_told_once_and_only_what_was_before_it_is_let_through() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"fine") + masked(PING) + masked(TEXT, b"x" * 1001) + masked(TEXT, b"more"))
    assert await wire.receive_some() == masked(PING)
    assert peer.inlet.empty() == ["fine"]
    assert not peer.faults
    assert await wire.receive_some() == b""
    assert [fault.code for fault in peer.faults] == [CloseCode.TOO_BIG]
    assert peer.inlet.closed
    peer.arrive(masked(BINARY))
    assert await wire.receive_some() == b""
    assert len(peer.faults) == 1
    assert not peer.inlet.messages


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (head(TEXT, 1001), CloseCode.TOO_BIG),
        (head(BINARY, 5), CloseCode.UNSUPPORTED_DATA),
        (masked(PING) * 51, CloseCode.POLICY),
        (masked(TEXT, fin=False) + masked(CONTINUATION, fin=False) * 200_000, CloseCode.POLICY),
        (masked(TEXT, "€".encode() * 334), CloseCode.TOO_BIG),  # 334 characters, 1,002 bytes
        (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),
        (b"\x81\x05hello", CloseCode.PROTOCOL_ERROR),
        (masked(CONTINUATION, b"x"), CloseCode.PROTOCOL_ERROR),
        (masked(TEXT, b"\xc3\x28"), CloseCode.INVALID_UTF8),
    ],
    ids=[
        "declared length",
        "binary",
        "control flood",
        "empty fragments",
        "bytes, not characters",
        "reserved opcode",
        "not masked",
        "continuation of nothing",
        "not UTF-8",
    ],
)
async def test_a_fault_ends_the_library_quietly(data: bytes, code: CloseCode) -> None:
    peer = Peer()
    async with library(peer) as (_wire, connection):
        peer.arrive(masked(TEXT, b"fine") + data)
        assert await peer.inlet.get() == "fine"
        assert await end_of(connection) == 1006
        assert not peer.inlet.messages
        assert [fault.code for fault in peer.faults] == [code]
        assert all(frame.opcode == PONG for frame in peer.frames)


@pytest.mark.parametrize(
    "arrivals",
    [
        [(0, masked(TEXT, b"hello")[:1])],
        [(0, masked(TEXT, b"hello")[:-1])],
        [(0, masked(TEXT, b"a", fin=False))],
        [(second, masked(TEXT, b"x" * 100)[second : second + 1]) for second in range(20)],
        [(0, masked(TEXT, b"a", fin=False)), (5, masked(PING)), (9, masked(CONTINUATION, fin=False))],
        [(0, masked(PING, b"ping")[:3])],
    ],
    ids=["one byte", "all but one byte", "fragment", "dribble", "pings do not help", "control frame"],
)
async def test_an_unfinished_message_ends_in_time(
    arrivals: list[tuple[int, bytes]], autojump_clock: MockClock
) -> None:
    peer = Peer()
    wire = peer.wire()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def client() -> None:
            for second, data in arrivals:
                await trio.sleep_until(start + second)
                peer.arrive(data)

        while await wire.receive_some():
            pass
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start == pytest.approx(10.0)
    assert [(fault.code, fault.reason) for fault in peer.faults] == [
        (CloseCode.POLICY, "message not finished in 10 seconds")
    ]
    assert not wire.ended


async def test_a_message_is_not_timed_while_nobody_reads(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    data = masked(TEXT, b"hello")
    for at in range(len(data)):
        peer.arrive(data[at : at + 1])
        assert await read_all(wire) == b""
        await trio.sleep(8)
    assert peer.inlet.empty() == ["hello"]
    assert not peer.faults
    with trio.move_on_after(100) as scope:
        await wire.receive_some()
    assert scope.cancelled_caught, "between messages there is no hurry"


async def test_a_wait_for_room_is_no_time_more_for_what_is_unfinished(autojump_clock: MockClock) -> None:
    peer = Peer()
    peer.inlet.room = 1
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"one") + masked(TEXT, b"two") + masked(TEXT, b"three") + masked(TEXT, b"?")[:3])
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, wire, 1e6)
        for number in (1, 2):
            await trio.sleep_until(start + 100 * number)
            await peer.inlet.get()
        await trio.sleep_until(start + 209.5)
        assert not peer.faults, "while nobody reads it is not timed"
        await trio.sleep_until(start + 210.5)
        assert [fault.code for fault in peer.faults] == [CloseCode.POLICY]


# What the library sends


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "tls"])
async def test_sending_returns_when_the_bytes_are_out(direct: bool) -> None:
    peer = Peer(room=3, direct=direct)
    wire = peer.wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, text_frame(b"pong"))
        await wait_all_tasks_blocked()
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        peer.give_room(100)
    assert peer.taken == text_frame(b"pong")
    await wire.wait_send_all_might_not_block()


async def test_a_connection_that_breaks_while_the_library_sends() -> None:
    peer = Peer(room=3)
    wire = peer.wire()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await wire.send_all(text_frame(b"pong"))

        await wait_all_tasks_blocked()
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        peer.fail()


async def test_after_our_close_frame_the_library_speaks_in_vain() -> None:
    peer = Peer(room=0)
    wire = peer.wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, text_frame(b"under way"))
        await wait_all_tasks_blocked()
        wire.close(1012, "restarting")
    with trio.fail_after(5):
        await wire.send_all(bytes((0x8A, 0)))
        await wire.send_all(bytes((0x88, 0)))
    assert not wire.close_replied
    peer.give_room(100)
    await wire.flush()
    assert [frame.close_code for frame in peer.frames] == [1012]


@pytest.mark.parametrize("room", [0, 5, 100])
async def test_no_frame_goes_out_before_the_handshake_is_answered(room: int) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    peer = Peer(room=room)
    wire = peer.wire(initial=HANDSHAKE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, answer)
        await wait_all_tasks_blocked()
        wire.close(1012, "restarting")
        peer.give_room(1000)
        await wire.flush()
    assert peer.taken.startswith(answer)
    assert [frame.close_code for frame in peer.frames] == ([1012] if room == 100 else [])
    never_answered = Peer()
    wire = never_answered.wire(initial=HANDSHAKE)
    wire.close(1012, "restarting")
    await wire.send_all(answer)
    assert never_answered.taken == b""


async def test_a_close_reply_is_the_last_thing_sent() -> None:
    peer = Peer(room=4)
    wire = peer.wire()
    wire.offer(text_frame(b"under way"), [11])
    wire.put(text_frame(b"not begun"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_all, bytes((0x88, 2, 3, 0xE8)))
        await wait_all_tasks_blocked()
        assert wire.close_replied
        wire.put(text_frame(b"late"))
        wire.close(1012, "late")
        peer.give_room(100)
        await wire.flush()
    assert peer.frames == [Frame(TEXT, b"under way"), Frame(CLOSE, b"\x03\xe8")]


# The library over a Wire: what it does, which is why Wire and its connection do what they do


HARMLESS = {
    "oversized and ping": masked(TEXT, b"x" * 1001) + masked(PING),
    "close and ping": masked(CLOSE, pack("!H", 1000)) + masked(PING),
    "close and garbage": masked(CLOSE) + b"\xff" * 50,
    "two closes": masked(CLOSE) * 2,
    "broken framing and ping": b"\xff" * 14 + masked(PING),
    "not UTF-8 and ping": masked(TEXT, b"\xff") + masked(PING),
    "close within a message": masked(TEXT, b"a", fin=False) + masked(CLOSE),
}


@pytest.mark.parametrize("ours_first", [False, True], ids=["peer only", "after our close"])
@pytest.mark.parametrize("case", HARMLESS)
async def test_no_bytes_end_more_than_their_own_connection(case: str, ours_first: bool) -> None:
    peer = Peer()
    async with library(peer) as (wire, connection):
        if ours_first:
            wire.close(1012, "restarting")
        peer.arrive(HARMLESS[case])
        assert await end_of(connection) in {1000, 1002, 1005, 1006, 1007}
        await wait_all_tasks_blocked()
    closes = [frame for frame in peer.frames if frame.opcode == CLOSE]
    if ours_first:
        assert [frame.close_code for frame in closes] == [1012]
    assert len(closes) <= 1
    assert peer.frames[-1:] == closes, "nothing follows a close frame"


async def test_a_ping_after_our_close_is_not_answered_and_breaks_nothing() -> None:
    peer = Peer()
    async with library(peer) as (wire, connection):
        wire.close(1012, "restarting")
        for _ in range(3):
            peer.arrive(masked(PING, b"?") + masked(TEXT, b"!"))
            assert await peer.inlet.get() == "!"
        peer.arrive(masked(CLOSE, pack("!H", 1012)))
        assert await end_of(connection) == 1012
        assert [frame.opcode for frame in peer.frames] == [CLOSE]
        assert not wire.close_replied
        assert wire.peer_closed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(CLOSE, b"x"), 1002),
        *((masked(CLOSE, pack("!H", bad)), 1002) for bad in (999, 1005, 5000, 65_535)),
        (masked(CLOSE, pack("!H", 1000) + b"\xff"), 1007),
    ],
)
async def test_the_library_does_not_answer_an_error_but_tells_its_code(data: bytes, code: int) -> None:
    peer = Peer()
    async with library(peer) as (wire, connection):
        peer.arrive(data)
        assert await end_of(connection) == code
        assert (peer.frames, wire.close_replied, peer.faults) == ([], False, [])
        wire.close(code, "protocol error")
        assert [frame.close_code for frame in peer.frames] == [code]


@pytest.mark.parametrize("trailing", [b"", masked(CLOSE, pack("!H", 1000))], ids=["later", "with handshake"])
async def test_a_close_is_answered_even_before_our_first_frame(trailing: bytes) -> None:
    peer = Peer()
    async with library(peer, trailing=trailing) as (wire, connection):
        if not trailing:
            peer.arrive(masked(CLOSE, pack("!H", 1000)))
        assert await end_of(connection) == 1000
        assert wire.close_replied
        assert [frame.close_code for frame in peer.frames] == [1000]


async def test_pongs_come_while_messages_wait_and_after_our_pings_nothing_grows() -> None:
    peer = Peer()
    peer.inlet.room = 16
    async with library(peer) as (wire, connection):
        for number in range(16):
            wire.ping()
            peer.arrive(masked(PONG) + masked(TEXT, b"waits") + masked(PING, b"%d" % number))
            await wait_all_tasks_blocked()
        assert [frame.payload for frame in peer.frames if frame.opcode == PONG] == [
            b"%d" % number for number in range(16)
        ]
        assert len(connection._pings) == 0


# The keepalive


class Tended:
    """A wire whose keepalive is tended, and which is read from or not."""

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.wire = peer.wire()
        self.peer = peer
        self.silent_at: float | None = None
        self.start = trio.current_time()
        nursery.start_soon(self.tend)
        self.reading = trio.CancelScope()
        self.nursery = nursery

    async def tend(self) -> None:
        while True:
            try:
                wait = self.wire.tend(trio.current_time())
            except Silent:
                self.silent_at = trio.current_time() - self.start
                return
            await self.wire.flush()
            await trio.sleep(wait)

    def read(self) -> None:
        """Read from now on."""
        self.reading = trio.CancelScope()
        self.nursery.start_soon(self._read)

    async def _read(self) -> None:
        with self.reading:
            while await self.wire.receive_some():
                pass

    async def after(self, seconds: float) -> int:
        """How many pings have gone out by then, seen from the start."""
        await trio.sleep_until(self.start + seconds)
        return bytes(self.peer.taken).count(ping_frame())


@asynccontextmanager
async def tended(*, direct: bool = True) -> AsyncIterator[Tended]:
    async with trio.open_nursery() as nursery:
        yield Tended(Peer(direct=direct), nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "tls"])
async def test_a_silent_peer_is_pinged_and_then_given_up(direct: bool, autojump_clock: MockClock) -> None:
    async with tended(direct=direct) as one:
        one.read()
        assert await one.after(19.9) == 0
        assert await one.after(20.1) == 1
        assert await one.after(34.9) == 1
        assert one.silent_at is None
        await one.after(100)
        assert one.silent_at == pytest.approx(35.0)


async def test_any_byte_that_comes_in_is_life(autojump_clock: MockClock) -> None:
    async with tended() as one:
        one.read()
        assert await one.after(30) == 1
        one.peer.arrive(masked(TEXT, b"x" * 100)[:1])
        await trio.sleep(5)
        one.peer.arrive(masked(TEXT, b"x" * 100)[1:])
        assert await one.after(54) == 1
        assert await one.after(56) == 2
        one.peer.arrive(masked(PONG))
        await one.after(70)
        assert one.silent_at is None


async def test_bytes_newly_taken_are_life(autojump_clock: MockClock) -> None:
    async with tended() as one:
        one.read()
        for second in range(10, 200, 10):
            assert await one.after(second) == 0
            one.wire.offer(text_frame(b"x"), [3])
        await one.after(300)
        assert one.silent_at is not None


async def test_a_peer_whom_we_do_not_read_is_not_given_up(autojump_clock: MockClock) -> None:
    async with tended() as one:
        assert await one.after(1000) == 0
        one.read()
        assert await one.after(1019) == 0
        assert await one.after(1025) == 1
        one.reading.cancel()
        await one.after(5000)
        assert one.silent_at is None
        one.read()
        await one.after(5009)
        assert one.silent_at is None
        await one.after(5040)
        assert one.silent_at is not None


async def test_a_ping_that_is_not_out_yet_is_not_waited_for(autojump_clock: MockClock) -> None:
    peer = Peer(room=1)
    wire = peer.wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive_some)
        await trio.sleep(20)
        assert wire.tend(trio.current_time()) == 15.0
        assert wire.pending, "half of the ping is out; whether the rest gets out is the flush's to watch"
        await trio.sleep(15)
        assert wire.tend(trio.current_time()) == 20.0
        nursery.cancel_scope.cancel()


# The end


async def close(wire: Wire, code: int = 1012) -> None:
    """What the connection does, with the library gone."""
    wire.close(code, "restarting")
    with trio.move_on_after(2):
        await wire.linger()
    await wire.finish()


@pytest.mark.parametrize(
    "answer",
    [
        masked(CLOSE, pack("!H", 1012)),
        masked(TEXT, b"unread" * 100) * 1000 + masked(CLOSE),
        masked(TEXT, b"x" * 70_000) + masked(CLOSE) + b"\xff" * 20,
        masked(TEXT, b"\x88\x80" * 400)[:500],
    ],
    ids=["at once", "behind other frames", "behind an oversized one", "just an end"],
)
async def test_a_peer_that_answers_is_closed_at_once_and_in_order(
    answer: bytes, autojump_clock: MockClock
) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(answer)
    if b"\xff" not in answer and not answer.endswith(masked(CLOSE)):
        peer.arrive_end()
    start = trio.current_time()
    await close(wire)
    assert trio.current_time() == start, "2.0 s against 0.0 s"
    assert (peer.closed, peer.aborted) == (True, False)
    assert [frame.close_code for frame in peer.frames] == [1012]


async def test_a_close_behind_a_refused_message_is_still_found(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with library(peer) as (wire, connection):
        data = masked(TEXT, b"x" * 5000) + masked(CLOSE)
        peer.arrive(data[:100])
        assert await end_of(connection) == 1006
        wire.close(1009, "too big")
    start = trio.current_time()
    peer.arrive(data[100:])
    await close(wire)
    assert trio.current_time() == start
    assert [frame.close_code for frame in peer.frames] == [1009], "the first reason stands"
    assert peer.closed


async def test_a_close_of_ours_with_the_library_takes_no_time(autojump_clock: MockClock) -> None:
    peer = Peer()
    start = trio.current_time()
    async with library(peer) as (wire, connection):
        wire.close(1012, "restarting")
        peer.arrive(masked(CLOSE, pack("!H", 1012)))
        assert await end_of(connection) == 1012
    await close(wire)
    assert trio.current_time() == start
    assert peer.closed


@pytest.mark.parametrize("flood", [False, True], ids=["silent", "flooding"])
async def test_a_peer_that_does_not_answer_is_reset(flood: bool, autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def talk() -> None:
            while flood:
                peer.arrive(masked(TEXT, b"and another thing") * 100)
                await trio.sleep(0.01)

        await close(wire)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start == pytest.approx(2.0)
    assert (peer.closed, peer.aborted) == (False, True)


async def test_a_peer_that_breaks_while_we_linger_is_reset(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.fail()
    start = trio.current_time()
    await close(wire)
    assert trio.current_time() == start
    assert peer.aborted


async def test_a_connection_lost_while_we_read_on_is_reset() -> None:
    peer = Peer()
    wire = peer.wire()
    wire.close(1012, "restarting")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.linger)
        await wait_all_tasks_blocked()
        peer.fail()
    assert wire.broken
    await wire.finish()
    assert peer.aborted


async def test_a_fin_behind_unread_data_is_replaced_by_a_reset(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(CLOSE))
    peer.unconfirmed = 5000
    start = trio.current_time()
    await close(wire)
    assert trio.current_time() - start == pytest.approx(0.5), "the peer gets a moment to confirm"
    assert (peer.closed, peer.aborted) == (False, True)


async def test_a_peer_that_confirms_in_a_moment_is_closed_in_order(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(CLOSE))
    peer.unconfirmed = 5000
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def confirm() -> None:
            await trio.sleep(0.1)
            peer.unconfirmed = 0

        await close(wire)
    assert (peer.closed, peer.aborted) == (True, False)


async def test_what_was_cut_off_by_the_deadline_is_reset(autojump_clock: MockClock) -> None:
    peer = Peer(room=5)
    wire = peer.wire()
    wire.offer(text_frame(b"under way"), [11])
    peer.arrive_end()
    await close(wire)
    assert peer.aborted


async def test_lingering_with_a_peer_that_takes_nothing_is_stalled(autojump_clock: MockClock) -> None:
    peer = Peer(room=0)
    wire = peer.wire()
    wire.close(1012, "restarting")
    with pytest.raises(Stalled):
        await wire.linger()


async def test_after_the_end_an_offer_reaches_nobody() -> None:
    ours, theirs = trio.socket.socketpair()
    number = ours.fileno()
    transport = SocketTransport.take(trio.SocketStream(ours), LIMITS)
    wire = Wire(transport, LIMITS, initial=b"", on_pending=lambda: None, on_fault=lambda fault: None)
    wire.deliver_to(Letterbox())
    await wire.finish()
    theirs.close()
    with socket.socket() as stranger, socket.socket() as other:
        assert number in (stranger.fileno(), other.fileno()), "the number is in use again"
        assert wire.offer(text_frame(b"not for you"), [13]) == 0
        assert wire.broken


async def test_after_the_end_it_holds_nobody_who_holds_it() -> None:
    class Owner(Letterbox):
        def __init__(self, wire: Wire) -> None:
            super().__init__()
            self.wire = wire

    wire = Peer().wire()
    owner = Owner(wire)
    wire.deliver_to(owner)
    gone = weakref.ref(owner)
    gc.disable()
    try:
        await wire.finish()
        del wire, owner
        assert gone() is None
    finally:
        gc.enable()


async def test_a_wire_has_no_dictionaries() -> None:
    wire = Peer().wire()
    assert not hasattr(wire, "__dict__")
    assert not hasattr(wire._inbound, "__dict__")
    assert not hasattr(wire._pulse, "__dict__")


# Whatever a client sends, however it is cut, nothing but the library's own word for the end comes out


def hostile() -> st.SearchStrategy[bytes]:
    opcode = st.sampled_from([CONTINUATION, TEXT, TEXT, TEXT, BINARY, PING, PONG, CLOSE, 5])
    payload = st.one_of(
        st.binary(max_size=10),
        st.text(max_size=5).map(str.encode),
        st.just(b"x" * 1001),
        st.just(b"\x03\xe8"),
    )
    declared = st.builds(
        head,
        opcode,
        st.sampled_from([0, 5, 126, 1000, 1001, 1 << 20, 1 << 63]),
        fin=st.booleans(),
        bits=st.sampled_from([0, 0, 4]),
        mask=st.booleans(),
    )
    frame = st.builds(masked, opcode, payload, fin=st.booleans())
    return st.one_of(frame, frame, frame, declared, st.binary(max_size=20))


async def serve_hostile(
    chunks: Sequence[bytes], split: int, *, room: int, ours_after: int | None, broken: bool
) -> Peer:
    """Play a whole connection as its parent task does, with a client that sends the chunks and leaves."""
    peer = Peer(room=room)
    wire = peer.wire(initial=HANDSHAKE + b"".join(chunks[:split]))

    async def client() -> None:
        for number, chunk in enumerate(chunks[split:]):
            await wait_all_tasks_blocked()
            peer.arrive(chunk)
            peer.give_room(50)
            if number == ours_after:
                peer.closed_early = b"\r\n\r\n" not in peer.taken
                wire.close(1012, "restarting")
        await wait_all_tasks_blocked()
        if broken:
            peer.fail()
        else:
            peer.arrive_end()
        peer.give_room(1 << 30)

    async def write() -> None:
        while not wire.broken:
            await wire.flush()
            await trio.sleep(1)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            request = await wrap_server_stream(nursery, wire, 16, 1 << 62, 64 * 1024)
            try:
                code = await end_of(await request.accept())
            except ConnectionClosed as closed:
                code = code_of(closed)
            wire.close(code if code in {1002, 1007} else 1000, "the end")
            nursery.cancel_scope.cancel()
        await wire.linger()
        await wire.finish()

    with trio.fail_after(60):
        async with trio.open_nursery() as both:
            both.start_soon(client)
            both.start_soon(serve)
    return peer


@settings(deadline=None)
@given(
    chunks=st.lists(st.lists(hostile(), max_size=4).map(b"".join), max_size=6),
    split=st.integers(0, 3),
    room=st.sampled_from([0, 20, 1 << 30]),
    ours_after=st.none() | st.integers(0, 4),
    broken=st.booleans(),
)
def test_only_declared_errors_leave_the_library_over_a_wire(
    chunks: list[bytes], split: int, room: int, ours_after: int | None, broken: bool
) -> None:
    serve = partial(serve_hostile, room=room, ours_after=ours_after, broken=broken)
    peer = trio.run(serve, chunks, split, clock=MockClock(autojump_threshold=0))
    assert peer.closed or peer.aborted
    assert len(peer.faults) <= 1
    assert bytes(peer.taken[:12]) in {b"", b"HTTP/1.1 101"}, "whole, here, since there is room for so much"
    if broken:
        return
    if peer.closed_early:
        assert peer.frames == []
    else:
        assert peer.taken.startswith(b"HTTP/1.1 101")
        assert [frame.opcode for frame in peer.frames].count(CLOSE) == 1
        assert peer.frames[-1].opcode == CLOSE


async def test_the_frame_limits_can_be_raised_and_binary_let_through() -> None:
    peer = Peer()
    raised = replace(LIMITS, frame_bytes=1 << 24, frame_fragments=1 << 20)
    wire = peer.wire(limits=raised, binary=True)
    peer.arrive(masked(BINARY, b"x" * 70_000))
    assert await read_all(wire) == b""
    assert peer.inlet.empty() == [b"x" * 70_000]
    assert not peer.faults
