"""Wire: what the library sees and what the inlet, limits, and what the library sends."""

import sys
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import wrap_server_stream

from chatroom.pure.frames import text_frame
from chatroom.values.codes import CloseCode
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
)
from tests.support.wires import CONTINUATION, LIMITS, Peer, end_of, library, read_all

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


async def test_what_was_read_is_not_kept_while_nothing_comes() -> None:
    class Segments(Peer):
        segments: tuple[bytes | None, ...] = ()

        def receive_nowait(self, max_bytes: int) -> bytes | None:
            self.segments = (super().receive_nowait(max_bytes),)
            return self.segments[0]

    peer = Segments()
    wire = peer.wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive_some)
        peer.arrive(masked(TEXT, b"x" * 100))
        await wait_all_tasks_blocked()
        references = sys.getrefcount(peer.segments[0])  # not in an assert, which would hold some itself
        assert references == 2, "ours, and that of the question"
        nursery.cancel_scope.cancel()


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
    await wire.receive_some(10)  # what the library would like is no measure for what is not for it
    wire.paced = True
    peer.arrive(masked(PING))
    await wire.receive_some(64 * 1024)
    assert peer.asked_for == [64 * 1024, 4096]


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


async def test_the_frame_limits_can_be_raised_and_binary_let_through() -> None:
    peer = Peer()
    raised = replace(LIMITS, frame_bytes=1 << 24, frame_fragments=1 << 20)
    wire = peer.wire(limits=raised, binary=True)
    peer.arrive(masked(BINARY, b"x" * 70_000))
    assert await read_all(wire) == b""
    assert peer.inlet.empty() == [b"x" * 70_000]
    assert not peer.faults


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
