"""The way out: one order, whole frames, never waiting in an offer."""

import sys
from collections.abc import Callable, Sequence
from itertools import accumulate

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from chatroom.net.transport import Stalled
from chatroom.websocket.framing import close_frame, ping_frame, pong_frame, text_frame
from chatroom.websocket.outbound import Outbound
from tests.support.client_frames import CLOSE, PING, Frame, read_frames
from tests.support.memory_transport import MemoryTransport

every_transport = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class Sender(Outbound):
    """An Outbound that counts how often it asked for its writer."""

    __slots__ = ("asked", "peer")

    def __init__(self, peer: MemoryTransport) -> None:
        super().__init__(peer, self._count)
        self.peer = peer
        self.asked = 0

    def _count(self) -> None:
        self.asked += 1


def sender(room: int = 1 << 40, *, tls: bool = False) -> Sender:
    return Sender(MemoryTransport(room=room, tls=tls))


def frames(*texts: str) -> tuple[bytes, list[int]]:
    """A batch: the frames in one piece, and where each of them ends."""
    parts = [text_frame(text.encode()) for text in texts]
    return b"".join(parts), list(accumulate(map(len, parts)))


def texts(peer: MemoryTransport) -> list[str]:
    """The messages that the peer has got in whole; what it got else must be nothing or part of a frame."""
    whole, _ = read_frames(bytes(peer.taken))
    return [frame.payload.decode() for frame in whole if frame.opcode not in {CLOSE, PING}]


def close_of(peer: MemoryTransport) -> Frame:
    """The peer's last frame, with nothing behind it."""
    whole, rest = read_frames(bytes(peer.taken))
    assert (whole[-1].opcode, rest) == (CLOSE, b"")
    return whole[-1]


# In pieces


def pieces(text: str = "x" * 20) -> tuple[list[bytes | memoryview], bytes]:
    """A frame in three pieces, one of them shared, and the frame."""
    frame = text_frame(text.encode())
    return [frame[:5], memoryview(frame)[5:17], frame[17:]], frame


@every_transport
async def test_a_frame_in_pieces_is_one_frame_in_its_turn(tls: bool) -> None:
    whole, frame = pieces()
    for room in range(len(frame) + 5):
        out = sender(room=room, tls=tls)
        out.put_pieces(whole)
        out.put(text_frame(b"y"))
        assert out.offer(*frames("z")) == (room > len(frame) + 3 - tls)
        out.peer.give_room(1000)
        await out.flush()
        assert not out.pending
        assert out.peer.taken.startswith(frame + text_frame(b"y"))


async def test_a_close_in_the_middle_of_pieces_comes_behind_their_frame() -> None:
    whole, frame = pieces()
    for room in range(len(frame) + 1):
        out = sender(room=room)
        out.put_pieces(whole)
        out.put(text_frame(b"too late"))
        out.close(1000, "")
        out.peer.give_room(1000)
        await out.flush()
        begun = frame if room else b""
        assert out.peer.taken.startswith(begun)
        assert len(out.peer.taken) == len(begun) + len(close_frame(1000, ""))
        assert close_of(out.peer).payload[:2] == (1000).to_bytes(2)


@every_transport
async def test_a_close_after_a_piece_was_sent_by_the_writer_waits_for_the_others(
    tls: bool, autojump_clock: MockClock
) -> None:
    whole, frame = pieces()
    for most in range(1, len(frame) + 1):
        out = sender(room=0, tls=tls)
        out.put_pieces(whole)
        out.peer.most = lambda most=most: most  # type: ignore[misc]
        out.peer.give_room(most)
        with trio.move_on_after(1):
            await out.flush()
        out.close(1000, "")
        out.peer.give_room(1000)
        await out.flush()
        assert out.peer.taken == frame + close_frame(1000, "")


async def test_of_pieces_that_wait_no_copy_is_made() -> None:
    whole, _ = pieces("x" * 10_000)
    out = sender(room=3)
    out.put_pieces(whole)
    assert [chunk for chunk, _ in out._queue] == whole
    assert all(kept is given for (kept, _), given in zip(out._queue, whole, strict=True))


def test_on_a_connection_that_breaks_between_pieces_nothing_is_kept() -> None:
    whole, _ = pieces()
    out = sender()
    out.peer.most = lambda: out.peer.fail() or 5  # type: ignore[func-returns-value]
    out.put_pieces(whole)
    assert (out.broken, out.pending) == (True, False)
    out.put_pieces(whole)
    assert not out.pending


# Offering


def test_an_offer_that_is_taken_needs_no_writer() -> None:
    out = sender()
    data, ends = frames("a", "b")
    assert out.offer(data, ends) == 2
    assert out.peer.taken == data
    assert (out.pending, out.moved, out.asked) == (False, True, 0)


def test_an_offer_to_a_full_socket_leaves_nothing() -> None:
    out = sender(room=0)
    assert out.offer(*frames("a", "b")) == 0
    assert (out.pending, out.moved, out.asked) == (False, False, 0)


async def test_the_frame_under_way_is_kept_and_no_more() -> None:
    data, ends = frames("first", "second", "third")
    for room in range(1, len(data)):
        out = sender(room=room)
        whole = sum(end <= room for end in ends)
        cut = room not in ends
        assert out.offer(data, ends) == whole + cut
        assert (out.pending, out.asked) == (cut, cut)
        out.peer.give_room(1000)
        await out.flush()
        assert out.peer.taken == data[: ends[whole + cut - 1]]
        assert not out.pending


def test_the_frame_under_way_does_not_pin_the_batch() -> None:
    data, ends = frames("first", "second", "x" * 1000)
    for room in (1, ends[0] + 1, ends[1] + 1):
        out = sender(room=room)
        before = sys.getrefcount(data)
        assert out.offer(data, ends)
        assert out.pending
        assert sys.getrefcount(data) == before


async def test_while_something_waits_an_offer_takes_nothing() -> None:
    out = sender(room=3)
    out.offer(*frames("under way"))
    out.peer.give_room(1)
    assert out.offer(*frames("late")) == 0
    out.peer.give_room(1000)
    assert out.offer(*frames("late")) == 0, "the queue isn't empty before the writer has emptied it"
    await out.flush()
    assert out.offer(*frames("in time")) == 1
    assert texts(out.peer) == ["under way", "in time"]


async def test_of_a_record_that_is_taken_in_part_the_transport_holds_the_rest() -> None:
    out = sender(room=4, tls=True)
    assert out.offer(*frames("a", "b")) == 2
    assert (out.pending, out.asked) == (True, 1)
    assert out.offer(*frames("late")) == 0
    assert out.asked == 1, "the writer knows"
    out.peer.give_room(2)
    await out.flush()
    assert texts(out.peer) == ["a", "b"]
    assert not out.pending
    assert out.offer(*frames("in time")) == 1


def test_of_what_is_more_than_a_record_the_frame_under_way_is_kept() -> None:
    data, ends = frames(*(["x" * 1000] * 40))
    for room, records in ((0, 1), (1, 1), (16 * 1024, 2), (20_000, 2)):
        out = sender(room=room, tls=True)
        before = sys.getrefcount(data)
        assert out.offer(data, ends) == records * 16 * 1024 // 1004 + 1
        assert sys.getrefcount(data) == before
        assert sum(len(kept) for kept, _ in out._queue) < 1005


def test_an_offer_on_a_broken_connection_says_nothing_and_wakes_everybody() -> None:
    out = sender()
    out.peer.fail()
    assert out.offer(*frames("a")) == 0
    assert (out.broken, out.peer.hung_up, out.asked) == (True, True, 1)
    assert out.offer(*frames("b")) == out.feed(*frames("c")) == 0
    out.put(b"d")
    out.ping()
    out.close(1012, "restarting")
    assert (out.pending, out.asked) == (False, 1)


# Putting


@every_transport
async def test_what_is_put_goes_out_in_order(tls: bool) -> None:
    out = sender(room=5, tls=tls)
    out.put(frames("one")[0])
    out.put(frames("two")[0])
    out.put(*frames("three", "four"))
    out.put(b"")
    assert out.pending
    assert out.asked == 2
    out.peer.give_room(1000)
    await out.flush()
    assert texts(out.peer) == ["one", "two", "three", "four"]
    assert not out.pending


def test_what_is_put_goes_out_at_once_if_it_can() -> None:
    out = sender()
    out.put(frames("one")[0])
    assert texts(out.peer) == ["one"]
    assert (out.pending, out.moved, out.asked) == (False, True, 0)


async def test_a_pong_does_not_get_between_the_halves_of_a_frame() -> None:
    out = sender(room=4)
    out.offer(*frames("halved"))
    out.peer.give_room(1000)
    out.put(frames("pong")[0])
    await out.flush()
    assert texts(out.peer) == ["halved", "pong"]


async def test_nothing_overtakes_a_write_in_flight() -> None:
    """Between two looks of the writer there is room, and others would send if they only asked the socket."""
    out = sender(room=4)
    out.put(frames("in flight")[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.flush)
        await wait_all_tasks_blocked()
        out.peer.give_room(1000)
        assert out.offer(*frames("offered")) == 0
        out.put(frames("put")[0])
    assert texts(out.peer) == ["in flight", "put"]


# Feeding


def test_feeding_an_idle_peer_is_offering() -> None:
    out = sender(room=8)
    data, ends = frames("a", "bcd", "e")
    assert out.feed(data, ends) == 2
    assert texts(out.peer) == ["a", "bcd"]
    assert not out.pending


async def test_feeding_a_full_peer_queues_a_small_copy() -> None:
    out = sender(room=0)
    data, ends = frames(*(["x" * 1000] * 40))
    before = sys.getrefcount(data)
    assert out.feed(data, ends) == 16
    assert sys.getrefcount(data) == before
    assert (out.pending, out.asked) == (True, 1)
    out.close(1012, "now")
    out.peer.give_room(1 << 20)
    await out.flush()
    assert len(out.peer.taken) < 100, "nothing had begun"


async def test_feeding_a_full_peer_by_tls_seals_a_record() -> None:
    out = sender(room=0, tls=True)
    data, ends = frames(*(["x" * 1000] * 40))
    before = sys.getrefcount(data)
    assert out.feed(data, ends) == 17
    assert sys.getrefcount(data) == before
    assert out.feed(data[ends[16] :], ends[: 40 - 17]) == 16
    out.close(1012, "now")
    out.peer.give_room(1 << 20)
    await out.flush()
    assert len(texts(out.peer)) == 17, "what is sealed can't be cut"
    close_of(out.peer)


@every_transport
async def test_feeding_takes_at_least_one_frame(tls: bool) -> None:
    out = sender(room=0, tls=tls)
    data, ends = frames("x" * 50_000, "y")
    assert out.feed(data, ends) == 1
    out.peer.give_room(1 << 20)
    await out.flush()
    assert out.feed(data[ends[0] :], [3]) == 1
    await out.flush()
    assert texts(out.peer) == ["x" * 50_000, "y"]


# Flushing


@every_transport
async def test_a_peer_that_takes_nothing_is_stalled(tls: bool, autojump_clock: MockClock) -> None:
    out = sender(room=1, tls=tls)
    out.put(frames("a")[0])
    with pytest.raises(Stalled):
        await out.flush()


@every_transport
async def test_a_cancelled_flush_leaves_the_rest_first_in_line(tls: bool) -> None:
    out = sender(room=6, tls=tls)
    out.put(*frames("halved", "b"))
    out.put(frames("c")[0])
    with trio.move_on_after(0) as scope:
        await out.flush()
    assert scope.cancelled_caught
    assert (out.broken, out.pending) == (False, True)
    out.peer.give_room(1000)
    await out.flush()
    assert texts(out.peer) == ["halved", "b", "c"]


@every_transport
async def test_a_connection_that_breaks_under_the_writer_ends_its_flush(tls: bool) -> None:
    out = sender(room=1, tls=tls)
    out.put(frames("a")[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.flush)
        await wait_all_tasks_blocked()
        out.peer.fail()
    assert (out.broken, out.pending) == (True, False)
    await out.flush()


async def test_a_connection_broken_while_a_record_is_held_stays_broken() -> None:
    out = sender(room=1, tls=True)
    out.put(frames("a")[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.flush)
        await wait_all_tasks_blocked()
        out.hang_up()  # what the reading side does when it finds the connection broken
        out.peer.give_room(100)
    assert (out.broken, out.pending) == (True, False)


# Closing


@every_transport
@pytest.mark.parametrize("begun", range(17))
async def test_closing_cuts_behind_the_frame_under_way(begun: int, tls: bool) -> None:
    out = sender(room=begun, tls=tls)
    data, ends = frames("one", "two", "three")
    out.put(data, ends)
    out.put(frames("four")[0])
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.flush)
            await wait_all_tasks_blocked()
            out.close(1012, "restarting")
            out.close(1008, "the first one counts")
            out.put(frames("late")[0])
            assert out.offer(*frames("late")) == out.feed(*frames("late")) == 0
            out.peer.give_room(1000)
    assert (close_of(out.peer).close_code, close_of(out.peer).payload[2:]) == (1012, b"restarting")
    kept = ["one", "two", "three", "four"][: len(texts(out.peer))]
    assert texts(out.peer) == kept
    if not tls:
        assert len(kept) == sum(begun > start for start in [0, *ends[:2]])
    else:
        assert kept == ["one", "two", "three"], "a record can't be cut: all of it was under way"
    assert (out.shut, out.pending) == (True, False)


def test_closing_an_idle_connection_sends_at_once() -> None:
    out = sender()
    out.put(frames("a")[0])
    out.close(4503, "no longer allowed here")
    assert texts(out.peer) == ["a"]
    assert close_of(out.peer).close_code == 4503
    assert not out.pending


def test_closing_a_connection_that_breaks_at_that_moment() -> None:
    out = sender()
    out.peer.fail()
    out.close(1012, "restarting")
    assert (out.broken, out.shut, out.pending) == (True, True, False)


async def test_closing_at_the_end_of_a_frame_within_a_chunk() -> None:
    data, ends = frames("one", "two")
    out = sender(room=ends[0])
    out.put(data, ends)
    out.close(1012, "restarting")
    out.peer.give_room(1000)
    await out.flush()
    assert texts(out.peer) == ["one"]
    close_of(out.peer)


@pytest.mark.parametrize("room", [0, 1, 16 * 1024 - 1])
async def test_closing_between_two_records_keeps_the_frame_that_has_begun(room: int) -> None:
    data, ends = frames("x" * 20_000, "never begun")
    out = sender(room=room, tls=True)
    out.put(data, ends)
    out.put(frames("neither")[0])
    out.close(1012, "restarting")
    assert out.pending
    out.peer.give_room(1 << 20)
    await out.flush()
    assert texts(out.peer) == ["x" * 20_000]
    close_of(out.peer)


async def test_a_close_frame_comes_behind_what_is_held() -> None:
    out = sender(room=1, tls=True)
    assert out.offer(*frames("sealed")) == 1
    out.close(1012, "restarting")
    assert out.pending
    out.peer.give_room(8)
    with trio.move_on_after(0.01):
        await out.flush()
    assert out.pending, "now the close frame is held"
    out.peer.give_room(1000)
    await out.flush()
    assert texts(out.peer) == ["sealed"]
    assert close_of(out.peer).close_code == 1012
    assert (out.pending, out.asked) == (False, 2)


@every_transport
async def test_a_ready_close_frame_is_the_last_as_well(tls: bool) -> None:
    out = sender(room=3, tls=tls)
    out.put(*frames("begun", "dropped") if not tls else frames("begun"))
    out.put(frames("dropped, too")[0])
    out.close_with(close_frame(1001, ""))
    out.close(1012, "too late")
    out.put(frames("too late")[0])
    out.peer.give_room(1000)
    await out.flush()
    assert texts(out.peer) == ["begun"]
    assert close_of(out.peer).close_code == 1001


async def test_what_the_reading_side_makes_tls_hold_is_pending_too() -> None:
    """An alert, say. Nobody is told of it: it goes out with what is sent next, or by a flush."""
    out = sender(room=0, tls=True)
    out.peer._rest = b"al"
    assert (out.pending, out.asked) == (True, 0)
    assert out.offer(*frames("a")) == 0
    out.put(frames("b")[0])
    assert out.asked == 1
    out.peer.give_room(1)
    with trio.move_on_after(0.01):
        await out.flush()
    out.peer.give_room(1000)
    await out.flush()
    assert out.peer.taken == b"al" + frames("b")[0]
    assert not out.pending
    out.peer._rest = b"ert"
    await out.flush()
    assert out.peer.taken.endswith(b"ert")


# Pongs


async def test_a_pong_goes_out_at_once_or_in_its_turn() -> None:
    out = sender()
    out.pong(b"1")
    assert out.peer.taken == pong_frame(b"1")
    out = sender(room=3)
    out.put(frames("halved")[0])
    out.pong(b"2")
    out.put(frames("after")[0])
    out.peer.give_room(1000)
    await out.flush()
    assert out.peer.taken == frames("halved")[0] + pong_frame(b"2") + frames("after")[0]


@every_transport
async def test_a_newer_pong_takes_the_place_of_one_that_waits(tls: bool) -> None:
    out = sender(room=3, tls=tls)
    out.put(frames("halved")[0])
    out.ping()
    out.pong(b"1")
    out.put(frames("after")[0])
    for number in range(1000):
        out.pong(b"%d" % number)
    assert len(out._queue) == (3 if tls else 4)
    out.peer.give_room(1000)
    await out.flush()
    assert out.peer.taken == b"".join(
        [frames("halved")[0], ping_frame(), pong_frame(b"999"), frames("after")[0]]
    )


async def test_a_pong_that_has_begun_is_not_replaced() -> None:
    out = sender(room=1)
    for payload in (b"1", b"22", b"333"):
        out.pong(payload)
    out.peer.give_room(1000)
    await out.flush()
    assert out.peer.taken == pong_frame(b"1") + pong_frame(b"333")


async def test_a_pong_behind_the_pieces_of_a_frame_is_replaced() -> None:
    whole, frame = pieces()
    out = sender(room=5)
    out.put_pieces(whole)
    out.pong(b"1")
    out.pong(b"2")
    out.peer.give_room(1000)
    await out.flush()
    assert out.peer.taken == frame + pong_frame(b"2")


def test_after_the_close_frame_and_on_a_broken_connection_no_ping_is_answered() -> None:
    for end in (lambda out: out.close(1000, ""), lambda out: out.hang_up()):
        out = sender()
        end(out)
        before = bytes(out.peer.taken)
        out.pong(b"")
        out.ping()
        assert (bytes(out.peer.taken), out.pending) == (before, False)


# Signs of life


@every_transport
async def test_pings_and_pongs_alone_are_no_sign_of_life(tls: bool) -> None:
    out = sender(tls=tls)
    out.ping()
    out.pong(b"p")
    await out.flush()
    assert out.peer.taken == ping_frame() + pong_frame(b"p")
    assert not out.moved
    out.put(frames("a")[0])
    await out.flush()
    assert out.moved


@every_transport
async def test_a_ping_sent_in_part_is_none_either(tls: bool) -> None:
    out = sender(room=1, tls=tls)
    out.ping()
    out.pong(b"p")
    assert out.pending
    for _ in range(4):
        out.peer.give_room(1)
        with trio.move_on_after(0):
            await out.flush()
    assert (bytes(out.peer.taken), out.moved) == (ping_frame() + pong_frame(b"p"), False)


# Whatever happens in whatever order, frames come out whole and in the order in which they were put


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "put", "put many", "feed", "room", "pass", "cancel"]),
        st.integers(0, 400),
    ),
    max_size=40,
)


class Player:
    """Carries out steps against an Outbound, and notes what it took responsibility for, in order."""

    def __init__(self, out: Sender) -> None:
        self.out = out
        self.handed: list[str] = []
        self.number = 0
        self.writing = trio.CancelScope()

    def batch(self, size: int) -> list[str]:
        names = []
        for length in (size, size % 7, size % 130)[: 1 + size % 3]:
            self.number += 1
            names.append(f"{self.number}:" + "x" * length)
        return names

    async def write(self) -> None:
        while not self.out.shut:
            with trio.CancelScope() as self.writing:
                await self.out.flush()
                await trio.testing.wait_all_tasks_blocked()
        await self.out.flush()

    async def play(self, steps: Sequence[Step]) -> None:
        for what, size in steps:
            await self.step(what, size)
        self.out.peer.give_room(1 << 40)

    async def step(self, what: str, size: int) -> None:
        out, names = self.out, self.batch(size)
        offers: dict[str, Callable[[bytes, list[int]], int]] = {"offer": out.offer, "feed": out.feed}
        if what in offers:
            self.handed += names[: offers[what](*frames(*names))]
        elif what == "put":
            self.handed.append(names[0])
            out.put(frames(names[0])[0])
        elif what == "put many":
            self.handed += names
            out.put(*frames(*names))
        elif what == "room":
            out.peer.give_room(size)
        elif what == "cancel":
            self.writing.cancel()
        await trio.lowlevel.checkpoint()


def play(steps: Sequence[Step], takes: Sequence[int], tls: bool, *, close: bool) -> tuple[Sender, list[str]]:
    turn = 0

    def most() -> int:
        nonlocal turn
        turn += 1
        return takes[turn % len(takes)] if takes else 1 << 40

    async def main() -> tuple[Sender, list[str]]:
        out = Sender(MemoryTransport(room=50, tls=tls, most=most))
        async with trio.open_nursery() as nursery:
            player = Player(out)
            nursery.start_soon(player.write)
            await player.play(steps)
            if not close:
                await wait_all_tasks_blocked()
                while out.pending:
                    await wait_all_tasks_blocked()
            before = len(out.peer.taken)
            out.close(1000, "done")
            if close:
                assert len(out.peer.taken) <= before + 100
        return out, player.handed

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(deadline=None)
@given(STEPS, st.lists(st.integers(1, 60), max_size=5), st.booleans())
def test_frames_never_land_inside_frames(steps: list[Step], takes: list[int], tls: bool) -> None:
    out, handed = play(steps, takes, tls, close=False)
    assert texts(out.peer) == handed
    assert close_of(out.peer).close_code == 1000


@settings(deadline=None)
@given(STEPS, st.lists(st.integers(1, 60), max_size=5), st.booleans())
def test_a_close_at_any_moment_ends_a_prefix(steps: list[Step], takes: list[int], tls: bool) -> None:
    out, handed = play(steps, takes, tls, close=True)
    assert texts(out.peer) == handed[: len(texts(out.peer))]
    assert close_of(out.peer).close_code == 1000
