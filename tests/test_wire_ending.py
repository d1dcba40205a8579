"""The keepalive of a Wire, and how a connection ends."""

import gc
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import pack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.adapters.transport import SocketTransport, Stalled
from chatroom.adapters.wire import Wire
from chatroom.pure.frames import ping_frame, text_frame
from chatroom.pure.pulse import Silent
from tests.support.client_frames import (
    CLOSE,
    PONG,
    TEXT,
    masked,
)
from tests.support.inlets import Letterbox
from tests.support.wires import LIMITS, Peer, end_of, library

# The keepalive


class Timed:
    """A wire whose keepalive is timed, and which is read from or not."""

    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self.wire = peer.wire()
        self.peer = peer
        self.silent_at: float | None = None
        self.start = trio.current_time()
        nursery.start_soon(self.on_timer)
        self.reading = trio.CancelScope()
        self.nursery = nursery

    async def on_timer(self) -> None:
        while True:
            try:
                wait = self.wire.on_timer(trio.current_time())
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
async def timed(*, direct: bool = True) -> AsyncIterator[Timed]:
    async with trio.open_nursery() as nursery:
        yield Timed(Peer(direct=direct), nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "tls"])
async def test_a_silent_peer_is_pinged_and_then_given_up(direct: bool, autojump_clock: MockClock) -> None:
    async with timed(direct=direct) as one:
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
            assert await one.after(second) == 0
            one.wire.offer(text_frame(b"x"), [3])
        await one.after(300)
        assert one.silent_at is not None


async def test_a_peer_whom_we_do_not_read_is_not_given_up(autojump_clock: MockClock) -> None:
    async with timed() as one:
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
        assert wire.on_timer(trio.current_time()) == 15.0
        assert wire.pending, "half of the ping is out; whether the rest gets out is the flush's to watch"
        await trio.sleep(15)
        assert wire.on_timer(trio.current_time()) == 20.0
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
