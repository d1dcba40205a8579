"""Wire: how it is read, the clocks that run meanwhile, and how a connection ends."""

import gc
import socket
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from struct import pack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.core.errors import CloseCode, Disconnect
from chatroom.net.transport import SocketTransport, Stalled
from chatroom.websocket.framing import ping_frame, text_frame
from chatroom.websocket.keepalive import KeepaliveTimeout
from chatroom.websocket.wire import Wire
from tests.support.client_frames import BINARY, CLOSE, PING, PONG, TEXT, masked
from tests.support.wires import CONTINUATION, LIMITS, Peer

# Reading


async def test_what_comes_is_read_while_it_is_watched() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"before"))
    await wait_all_tasks_blocked()
    assert not peer.messages
    peer.read(wire)
    await wait_all_tasks_blocked()
    peer.arrive(masked(TEXT, b"one") + masked(PING, b"?"))
    await wait_all_tasks_blocked()
    assert peer.messages == ["before", "one"]
    assert peer.pings == [b"?"]
    wire.unwatch()
    peer.arrive(masked(TEXT, b"unheard"))
    await wait_all_tasks_blocked()
    assert peer.messages == ["before", "one"]


async def test_what_was_read_is_not_kept_while_nothing_comes() -> None:
    class Segments(Peer):
        segments: tuple[bytes | None, ...] = ()

        def receive_nowait(self, max_bytes: int) -> bytes | None:
            self.segments = (super().receive_nowait(max_bytes),)
            return self.segments[0]

    peer = Segments()
    peer.read(peer.wire())
    peer.arrive(masked(TEXT, b"x" * 100))
    await wait_all_tasks_blocked()
    references = sys.getrefcount(peer.segments[0])  # not in an assert, which would hold some itself
    assert references == 2, "ours, and that of the question"


async def test_how_much_is_read_at_a_time() -> None:
    peer = Peer()
    wire = peer.wire()
    wire.read()
    wire.paced = True
    wire.read()
    assert peer.asked_for == [64 * 1024, 4096]


async def test_more_is_at_hand_only_where_the_transport_says_so_and_it_is_watched() -> None:
    class Buffering(Peer):
        buffered = True

    wire = Peer().wire()
    assert not wire.readable
    wire.watch(lambda: None)
    assert not wire.readable
    wire = Buffering().wire()
    assert not wire.readable
    wire.watch(lambda: None)
    assert wire.readable


async def test_the_end_of_the_stream() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.arrive(masked(TEXT, b"last words") + masked(TEXT, b"never finished")[:9])
    peer.arrive_end()
    peer.read(wire)
    await wait_all_tasks_blocked()
    assert wire.ended
    assert not wire.outbound.broken
    assert peer.messages == ["last words"]


async def test_a_broken_way_in_breaks_the_way_out() -> None:
    peer = Peer()
    wire = peer.wire()
    peer.fail(ConnectionResetError)
    wire.read()
    assert wire.ended
    assert wire.outbound.broken
    assert peer.asked == 1, "the writer is told"


async def test_a_broken_way_out_ends_the_way_in_behind_what_was_sent() -> None:
    class HalfBroken(Peer):
        def send_nowait(self, data: bytes | memoryview) -> int:
            raise BrokenPipeError

    peer = HalfBroken()
    wire = peer.wire()
    peer.read(wire)
    await wait_all_tasks_blocked()
    peer.arrive(masked(TEXT, b"one") + masked(TEXT, b"two"))
    assert wire.outbound.offer(text_frame(b"x"), [3]) == 0
    await wait_all_tasks_blocked()
    assert wire.outbound.broken
    assert peer.messages == ["one", "two"]
    assert wire.ended


async def test_the_frame_limits_can_be_raised_and_binary_let_through() -> None:
    peer = Peer()
    wire = peer.wire(limits=replace(LIMITS, frame_bytes=1 << 24, frame_fragments=1 << 20), binary=True)
    peer.arrive(masked(BINARY, b"x" * 70_000))
    peer.read(wire)
    await wait_all_tasks_blocked()
    assert peer.messages == [b"x" * 70_000]
    assert wire.inbound.fault is None


# The clocks


class Timed:
    """A wire whose clocks are looked at as they ask for, and which is read from or not."""

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.wire = peer.wire()
        self.peer = peer
        self.silent_at: float | None = None
        self.fault: Disconnect | None = None
        self.fault_at: float | None = None
        self.start = trio.current_time()
        self._news = trio.Event()
        nursery.start_soon(self.on_timer)

    @property
    def now(self) -> float:
        return trio.current_time() - self.start

    async def on_timer(self) -> None:
        while True:
            try:
                wait = self.wire.on_timer(trio.current_time())
            except KeepaliveTimeout:
                self.silent_at = self.now
                return
            except Disconnect as fault:
                self.fault, self.fault_at = fault, self.now
                return
            await self.wire.outbound.flush()
            self._news = trio.Event()
            with trio.move_on_after(wait):
                await self._news.wait()

    async def arrive(self, data: bytes) -> None:
        """What makes the clock of a message start, so that the clocks have to be looked at anew."""
        self.peer.arrive(data)
        await wait_all_tasks_blocked()
        self._news.set()

    def read(self) -> None:
        """Read from now on."""
        self.peer.read(self.wire)

    async def after(self, seconds: float) -> int:
        """How many pings have gone out by then, seen from the start."""
        await trio.sleep_until(self.start + seconds)
        return bytes(self.peer.taken).count(ping_frame())


@asynccontextmanager
async def timed() -> AsyncIterator[Timed]:
    async with trio.open_nursery() as nursery:
        yield Timed(Peer(), nursery)
        nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_pinged_and_then_given_up(autojump_clock: MockClock) -> None:
    async with timed() as one:
        one.read()
        assert await one.after(19.9) == 0
        assert await one.after(20.1) == 1
        assert await one.after(34.9) == 1
        assert one.silent_at is None
        await one.after(100)
        assert one.silent_at == pytest.approx(35.0)


async def test_any_byte_that_comes_in_is_life(autojump_clock: MockClock) -> None:
    async with timed() as one:
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
    async with timed() as one:
        one.read()
        for second in range(10, 200, 10):
            await one.after(second)
            one.wire.outbound.offer(text_frame(b"x"), [3])
        await one.after(194)
        assert one.silent_at is None
        await one.after(300)
        assert one.silent_at == pytest.approx(215.0), "the ping at 200 s is behind the last of them"


@pytest.mark.parametrize("when", [0.1, 10.0, 19.9, 20.1, 34.9])
@pytest.mark.parametrize("into", ["in", "out"])
async def test_behind_the_last_byte_a_ping_comes_within_the_interval(
    into: str, when: float, autojump_clock: MockClock
) -> None:
    """However it lies to the clock's own steps. Who has vanished is gone within both times together."""
    async with timed() as one:
        one.read()
        await one.after(20.05)
        one.peer.arrive(masked(PONG))
        before = await one.after(20 + when)
        if into == "out":
            one.wire.outbound.offer(text_frame(b"x"), [3])
        else:
            one.peer.arrive(masked(PONG))
        assert await one.after(20 + when + 20.01) == before + 1
        await one.after(20 + when + 36.01)
        assert one.silent_at is not None


async def test_a_peer_whom_we_do_not_read_is_not_given_up(autojump_clock: MockClock) -> None:
    """That its system has confirmed our pings is all that can be known."""
    async with timed() as one:
        assert await one.after(1000.1) == 50
        one.read()
        await one.after(1014)
        assert one.silent_at is None, "its answers may come now"
        one.peer.arrive(masked(PONG))
        await one.after(1019)
        one.wire.unwatch()
        await one.after(5000)
        assert one.silent_at is None
        one.read()
        await one.after(5040)
        assert one.silent_at is not None


async def test_a_peer_whom_we_do_not_read_and_do_not_reach_is_given_up(autojump_clock: MockClock) -> None:
    async with timed() as one:
        await one.after(61)
        one.peer.unconfirmed = 2
        await one.after(100)
        assert one.silent_at == pytest.approx(75.0), "the ping at 60 s was the first that didn't arrive"


async def test_a_peer_whom_we_do_not_read_and_that_is_reset_breaks_it(autojump_clock: MockClock) -> None:
    async with timed() as one:
        one.peer.fail()
        await one.after(20.1)
        assert one.wire.outbound.broken


async def test_what_tls_holds_by_itself_is_flushed_so_that_its_peer_is_watched(
    autojump_clock: MockClock,
) -> None:
    peer = Peer(room=0, tls=True)
    wire = peer.wire()
    peer._rest = b"answer to a change of keys"
    assert peer.asked == 0
    assert wire.on_timer(trio.current_time()) == LIMITS.ping_interval
    assert peer.asked == 1
    with pytest.raises(Stalled):
        await wire.outbound.flush()


async def test_a_ping_that_is_not_out_yet_is_not_waited_for(autojump_clock: MockClock) -> None:
    peer = Peer(room=1)
    wire = peer.wire()
    peer.read(wire)
    await trio.sleep(20)
    assert wire.on_timer(trio.current_time()) == 15.0
    assert wire.outbound.pending, "half of the ping is out; whether the rest gets out is the flush's to watch"
    await trio.sleep(15)
    assert wire.on_timer(trio.current_time()) == 20.0


@pytest.mark.parametrize(
    "received",
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
    received: list[tuple[int, bytes]], autojump_clock: MockClock
) -> None:
    async with timed() as one:
        one.read()
        for second, data in received:
            await one.after(second)
            await one.arrive(data)
        await one.after(30)
        assert one.fault_at == pytest.approx(10.0)
        assert one.fault is one.wire.inbound.fault
        assert one.fault is not None
        assert (one.fault.code, one.fault.reason) == (
            CloseCode.POLICY,
            "message not finished in 10 seconds",
        )
        assert not one.wire.ended


async def test_a_message_is_not_timed_while_nobody_reads(autojump_clock: MockClock) -> None:
    async with timed() as one:
        for byte in masked(TEXT, b"hello"):
            one.read()
            await one.arrive(bytes((byte,)))
            await trio.sleep(0.5)
            one.wire.unwatch()
            await trio.sleep(8)
        assert one.peer.messages == ["hello"]
        assert one.fault is None
        one.read()
        await one.arrive(masked(TEXT, b"hello")[:3])
        one.wire.unwatch()
        await trio.sleep(100)
        assert one.fault is None
        one.read()
        await one.arrive(b"")
        await trio.sleep(9)
        assert one.fault is None
        await trio.sleep(2)
        assert one.fault is not None


async def test_the_clock_of_a_message_asks_to_be_looked_at_in_time(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.read(wire)
    assert wire.on_timer(trio.current_time()) == 20.0
    await trio.sleep(3)
    peer.arrive(masked(TEXT, b"hello")[:3])
    await wait_all_tasks_blocked()
    assert wire.on_timer(trio.current_time()) == 10.0
    await trio.sleep(4)
    assert wire.on_timer(trio.current_time()) == 6.0


# The end


async def close(wire: Wire, code: int = 1012) -> None:
    """What the connection does, with nobody else at the wire."""
    wire.outbound.close(code, "restarting")
    with trio.move_on_after(2):
        await wire.linger()
    await wire.wait_confirmed()
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


@pytest.mark.parametrize("flood", [False, True], ids=["silent", "flooding"])
async def test_a_peer_that_does_not_answer_is_not_waited_for_long(
    flood: bool, autojump_clock: MockClock
) -> None:
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
    assert (peer.closed, peer.aborted) == (True, False), "a reset could take back what it hasn't read yet"


async def test_a_drop_is_a_reset() -> None:
    peer = Peer()
    await peer.wire().finish(hard=True)
    assert (peer.closed, peer.aborted) == (False, True)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_close_frame_behind_much_is_given_time_to_arrive(
    answers: bool, autojump_clock: MockClock
) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.unconfirmed = 5000
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            for _ in range(50):
                await trio.sleep(0.1)
                peer.arrive(masked(PING))
                peer.unconfirmed -= 100
            if answers:
                peer.arrive(masked(CLOSE))

        await close(wire)
    assert trio.current_time() - start == pytest.approx(5.0, abs=0.1)
    assert (peer.closed, peer.aborted) == (True, False)


async def test_a_close_frame_that_does_not_arrive_is_given_up(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.unconfirmed = 5000
    start = trio.current_time()
    await close(wire)
    assert trio.current_time() - start == pytest.approx(2.0 + LIMITS.send_timeout)
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
    wire.outbound.close(1012, "restarting")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.linger)
        await wait_all_tasks_blocked()
        peer.fail()
    assert wire.outbound.broken
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
    wire.outbound.offer(text_frame(b"under way"), [11])
    peer.arrive_end()
    await close(wire)
    assert peer.aborted


async def test_lingering_with_a_peer_that_takes_nothing_is_stalled(autojump_clock: MockClock) -> None:
    peer = Peer(room=0)
    wire = peer.wire()
    wire.outbound.close(1012, "restarting")
    with pytest.raises(Stalled):
        await wire.linger()


async def test_a_close_behind_a_refused_message_is_still_found(autojump_clock: MockClock) -> None:
    peer = Peer()
    wire = peer.wire()
    peer.read(wire)
    data = masked(TEXT, b"x" * 5000) + masked(CLOSE)
    peer.arrive(data[:100])
    await wait_all_tasks_blocked()
    assert wire.inbound.fault is not None
    wire.outbound.close(1009, "too big")
    start = trio.current_time()
    peer.arrive(data[100:])
    await close(wire)
    assert trio.current_time() == start
    assert [frame.close_code for frame in peer.frames] == [1009], "the first reason stands"
    assert peer.closed


async def test_after_the_end_an_offer_reaches_nobody() -> None:
    ours, theirs = trio.socket.socketpair()
    number = ours.fileno()
    transport = SocketTransport(socket.socket(fileno=ours.detach()), LIMITS)
    wire = Wire(transport, LIMITS, on_pending=lambda: None)
    await wire.finish()
    theirs.close()
    with socket.socket() as stranger, socket.socket() as other:
        assert number in (stranger.fileno(), other.fileno()), "the number is in use again"
        assert wire.outbound.offer(text_frame(b"not for you"), [13]) == 0
        assert wire.outbound.broken


async def test_after_the_end_it_holds_nobody_who_holds_it() -> None:
    class Owner:
        def __init__(self) -> None:
            self.wire = Wire(Peer(), LIMITS, on_pending=self.wake)

        def wake(self) -> None: ...

    owner = Owner()
    gone = weakref.ref(owner)
    gc.disable()
    try:
        await owner.wire.finish()
        del owner
        assert gone() is None
    finally:
        gc.enable()


async def test_a_wire_has_no_dictionaries() -> None:
    wire = Peer().wire()
    for part in (wire, wire.inbound, wire.outbound, wire._keepalive):
        assert not hasattr(part, "__dict__")
