"""The library over a Wire: what it does, which is why Wire and its connection do what they do."""

from collections.abc import Sequence
from functools import partial
from struct import pack

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, wrap_server_stream

from tests.support.client_frames import (
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    head,
    masked,
)
from tests.support.wires import CONTINUATION, Peer, code_of, end_of, library

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
            if peer.faults:
                code = peer.faults[0].code
            wire.close(code if code in range(1002, 1010) and code != 1006 else 1000, "the end")
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
        if peer.faults and ours_after is None:
            assert peer.frames[-1].close_code == peer.faults[0].code
    assert all(isinstance(message, str) and len(message.encode()) <= 1000 for message in peer.inlet.messages)
