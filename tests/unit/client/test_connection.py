"""A client at work on streams in memory: against the model server, and against peers that do anything else.

Time is virtual. What is about real sockets and TLS is in test_dialer.
"""

import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.client.connection import (
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    RENEW_SECONDS,
    SEND_SECONDS,
    Client,
)
from chatroom.client.core import SILENCE, State
from chatroom.client.cursor import Begin, Position
from chatroom.client.dialer import HEAD_BYTES, Unreachable, Untrusted
from chatroom.client.events import (
    Answered,
    Ended,
    Ending,
    Entered,
    Event,
    Expiring,
    Gap,
    Lost,
    Recorded,
    Settled,
)
from chatroom.client.frames import LONGEST_FRAME
from chatroom.core.errors import StartError
from tests.conftest import run_on_virtual_clock
from tests.support.raw import ACCEPT
from tests.support.served_model import MemoryDialer, Peer, ServedModel
from tests.unit.client.test_frames import objects

pytestmark = pytest.mark.usefixtures("autojump_clock")
TOKEN = "to" + "ken"


class Program:
    """What shows the events of a client."""

    def __init__(self, dialer: MemoryDialer, **more: Any) -> None:
        self.dialer = dialer
        self.token = TOKEN
        self.shown: list[Event] = []
        self.busy: Callable[[Event], Awaitable[object]] | None = None
        self.ended: Ended | None = None
        options = {"room": "general", "username": None, "begin": Begin.FIRST, **more}
        self.client = Client(dialer, lambda: self.token, **options)

    async def handle(self, event: Event) -> None:
        if self.busy is not None:
            await self.busy(event)
        await trio.lowlevel.checkpoint()
        self.shown.append(event)

    async def run(self) -> None:
        self.ended = await self.client.run(self.handle)

    async def until(self, found: Callable[[], object], seconds: float = 3600.0) -> None:
        """Wait until it is so."""
        with trio.fail_after(seconds):
            while not found():  # noqa: ASYNC110  (time is virtual)
                await trio.sleep(0.1)

    async def event(self, kind: type[Any], number: int = 1) -> Any:
        """The n-th event of this kind."""
        await self.until(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.shown if isinstance(each, kind)]

    @property
    def ids(self) -> list[int]:
        return [each.id for each in self.of(Recorded)]


def taking(seconds: float) -> Callable[[Event], Awaitable[None]]:
    """Takes its time for each event."""

    async def handle(event: Event) -> None:
        await trio.sleep(seconds)

    return handle


def waiting_for(end: trio.Event) -> Callable[[Event], Awaitable[None]]:
    async def handle(event: Event) -> None:
        await end.wait()

    return handle


@asynccontextmanager
async def program(peer: Peer, **more: Any) -> AsyncIterator[Program]:
    """A client that runs against a peer, and is stopped behind the test."""
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, peer), **more)
        nursery.start_soon(found.run)
        yield found
        patience = CLOSE_SECONDS + (1 if found.busy is None else 60)
        found.busy = None
        found.client.stop()
        await found.until(lambda: found.ended, patience)
        nursery.cancel_scope.cancel()


# Peers


async def head_of(stream: trio.abc.Stream) -> bytes:
    """The request of a client."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            await trio.sleep_forever()
        head += bytes(data)
    return head


def accepting(head: bytes, **headers: str) -> bytes:
    """The answer that lets a client in."""
    key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    token = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    found = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": token, **headers}
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in found.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame_bytes(payload: bytes, first: int = 0x81) -> bytes:
    """A frame of a server."""
    size = len(payload)
    length = (
        bytes([size])
        if size < 126
        else struct.pack("!BH", 126, size)
        if size < 65536
        else struct.pack("!BQ", 127, size)
    )
    return bytes([first]) + length + payload


def close_bytes(code: int, reason: str = "") -> bytes:
    return frame_bytes(struct.pack("!H", code) + reason.encode(), 0x88)


def welcome(**members: Any) -> bytes:
    whole = {"event": "welcome", "data": {"members": []}, "room": "general", "username": "alice"}
    return frame_bytes(json.dumps({**whole, "epoch": "e", "last_id": 0, "replay": 0, **members}).encode())


def answering(*pieces: bytes, ends: bool = True, pause: float = 0.0) -> Peer:
    """A peer that answers a request so, whatever it is."""

    async def peer(stream: trio.abc.Stream) -> None:
        await head_of(stream)
        for piece in pieces:
            await trio.sleep(pause)
            await stream.send_all(piece)
        if not ends:
            await trio.sleep_forever()

    return peer


def framing(*pieces: bytes, ends: bool = True) -> Peer:
    """A peer that lets in, and then says this."""

    async def peer(stream: trio.abc.Stream) -> None:
        await stream.send_all(accepting(await head_of(stream)))
        for piece in pieces:
            await stream.send_all(piece)
        if not ends:
            await trio.sleep_forever()

    return peer


async def silent(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def gone(stream: trio.abc.Stream) -> None:
    pass


def response(status: str, *headers: str, body: bytes = b"", kind: str = "text/plain; charset=utf-8") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


# Against the model


async def test_it_shows_what_is_there_and_what_comes() -> None:
    served = ServedModel()
    for number in range(9):
        served.model.store("general", "message", {"username": "bob", "text": str(number)})
    async with program(served) as found:
        await found.until(lambda: len(found.ids) == 9)
        served.model.store("general", "message", {"username": "bob", "text": "new"})
        await found.until(lambda: len(found.ids) == 10)
    assert found.ids == list(range(1, 11))
    assert found.of(Gap) == [Gap("general", 0, 7, True)]
    assert found.ended == found.shown[-1] == Ended(Ending.STOPPED)


async def test_the_token_is_in_a_header_and_nowhere_else() -> None:
    served = ServedModel()
    async with program(served, username="al ice", room="o+ps", position=Position("e é", 7)) as found:
        await found.event(Entered)
    assert served.headers[0][b"authorization"] == f"Bearer {TOKEN}".encode()
    assert served.targets == ["/?room=o%2Bps&username=al%20ice&since=7&epoch=e%20%C3%A9"]


async def test_the_host_is_the_one_of_the_address() -> None:
    heads = []

    async def peer(stream: trio.abc.Stream) -> None:
        heads.append(await head_of(stream))

    async with program(peer) as found:
        await found.event(Lost)
    assert b"\r\nHost: model:3000\r\n" in heads[0]


async def test_what_is_said_is_stored_once_and_in_order() -> None:
    served = ServedModel()
    async with program(served) as found:
        cids = [found.client.say(str(number)) for number in range(20)]
        await found.event(Settled, 3)
        served.connection.close(1012, "restart")
        await found.event(Settled, 20)
    log = served.model.log("general").records
    assert [record["data"]["text"] for record in log] == [str(number) for number in range(20)]
    assert [(each.cid, each.id) for each in found.of(Settled)] == [
        (cid, number) for number, cid in enumerate(cids, 1)
    ]


async def test_what_is_asked_is_answered() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        cid = found.client.ask("history", {"after": 0})
        answered = await found.event(Answered)
        assert (answered.cid, answered.frame.event) == (cid, "history")


async def test_it_goes_to_another_room_and_types_there() -> None:
    served = ServedModel()
    served.deaf_to = {"typing"}
    async with program(served) as found:
        await found.event(Entered)
        found.client.switch("ops")
        entered = await found.event(Entered, 2)
        assert entered.room == "ops"
        found.client.typing(True)
        await found.until(lambda: served.commands[-1]["event"] == "typing")
        assert found.client.core.room == "ops"


@pytest.mark.parametrize("how", ["close", "cut", "reset"])
async def test_it_comes_back_and_goes_on_where_it_was(how: str) -> None:
    served = ServedModel()
    async with program(served) as found:
        for number in range(1, 6):
            await found.event(Entered, number)
            served.model.store("general", "message", {"username": "bob", "text": "hi"})
            await found.until(lambda: len(found.ids) == 2 * number - 1)  # noqa: B023
            connection = served.connection
            if how == "close":
                connection.close(1012, "restart")
            elif how == "cut":
                await connection.vanish()
            else:
                connection.websocket._stream.send_stream.close()
            await found.event(Lost, number)
            served.model.store("general", "message", {"username": "bob", "text": "hi"})
        await found.event(Entered, 6)
        await found.until(lambda: len(found.ids) == 10)
    assert found.ids == list(range(1, 11))
    assert [each.resumed for each in found.of(Entered)] == [False] + [True] * 5
    assert served.targets[1:] == [f"/?room=general&since={2 * n - 1}&epoch=e0" for n in range(1, 6)]


async def test_a_server_that_answers_nothing_any_more_is_given_up() -> None:
    served = ServedModel()
    served.deaf_to = {"ping"}
    async with program(served) as found:
        await found.event(Entered)
        began = trio.current_time()
        lost = await found.event(Lost)
        assert lost.reason == "the server is silent"
        assert 2 * SILENCE - 1 < trio.current_time() - began < 2 * SILENCE + 1


async def test_a_quiet_room_keeps_its_connection() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        await trio.sleep(3600)
        assert found.of(Lost) == []
        assert {each["event"] for each in served.commands} == {"ping"}
        assert 3600 / SILENCE - 2 <= len(served.commands) <= 3600 / SILENCE


# A program that takes its time


async def test_a_program_that_takes_minutes_loses_nothing() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        for number in range(1, 4):
            served.model.store("general", "message", {"username": "bob", "text": "hi"})
            await found.until(lambda: len(found.ids) == 6 * number - 5)  # noqa: B023
            busy = trio.Event()
            found.busy = waiting_for(busy)
            for _ in range(3):
                served.model.store("general", "message", {"username": "bob", "text": "hi"})
            await trio.sleep(300)
            await served.connection.vanish()
            for _ in range(2):
                served.model.store("general", "message", {"username": "bob", "text": "hi"})
            found.busy = None
            busy.set()
            await found.event(Entered, number + 1)
            await found.until(lambda: len(found.ids) == 6 * number)  # noqa: B023
    assert found.ids == list(range(1, 19))
    assert found.of(Gap) == []


async def test_a_connection_that_stood_while_the_program_was_busy_goes_on() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        found.busy = taking(300)
        served.model.store("general", "message", {"username": "bob", "text": "hi"})
        served.model.store("general", "message", {"username": "bob", "text": "hi"})
        await found.until(lambda: len(found.ids) == 2)
        found.busy = None
        served.model.store("general", "message", {"username": "bob", "text": "hi"})
        await found.until(lambda: len(found.ids) == 3)
        assert found.of(Lost) == []


@pytest.mark.parametrize("pieces", [b"\xff" * 100, close_bytes(1012) + b"\x89\x00" * 10])
async def test_whatever_comes_meanwhile_does_not_interrupt_a_program(pieces: bytes) -> None:
    record = {"event": "message", "data": {}, "room": "general", "id": 1}
    records = [frame_bytes(json.dumps({**record, "id": number}).encode()) for number in (1, 2, 3)]
    async with program(framing(welcome(), *records, pieces)) as found:
        found.busy = taking(5)
        await found.event(Lost)
        assert found.ids == [1, 2, 3]


async def test_an_error_of_the_program_comes_out_and_is_its_own() -> None:
    """Also one of a kind that the library raises."""
    served = ServedModel()

    async def fail(event: Event) -> None:
        if isinstance(event, Recorded):
            raise trio.BrokenResourceError("standard output")

    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, served))
        found.busy = fail
        served.model.store("general", "message", {"username": "bob", "text": "hi"})
        caught = []
        with trio.fail_after(60):
            try:
                await found.run()
            except* trio.BrokenResourceError as group:
                caught.append(group)
        assert caught
        assert found.dialer.opened == 1
        nursery.cancel_scope.cancel()


# Answers that are no handshake


def hanging(*pieces: bytes, pause: float = 0.0) -> Peer:
    return answering(*pieces, ends=False, pause=pause)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (silent, "it doesn't answer the handshake"),
        (gone, "it doesn't answer the handshake"),
        (answering(b""), "it doesn't answer the handshake"),
        (answering(b"\x00\xff" * 30), "it breaks the rules of WebSocket"),
        (answering(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "it doesn't answer the handshake"),
        (hanging(b"220 smtp.example ESMTP\r\n"), "it doesn't answer the handshake"),
        (hanging(b"220 smtp.example ESMTP\r\n\r\n"), "it breaks the rules of WebSocket"),
        (hanging(b"x" * (HEAD_BYTES + 1)), "it breaks the rules of WebSocket"),
        (hanging(b"HTTP/1.1 101 Switching Protocols\r\n"), "it doesn't answer the handshake"),
        (hanging(*[b"x"] * 1000, pause=1.0), "it doesn't answer the handshake"),
        (hanging(*[b"HTTP/1.1 102 Wait\r\n\r\n"] * 9999), "the answer is HTTP 102"),
        (answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "it breaks the rules of WebSocket"),
        (
            answering(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
            ),
            "it breaks the rules of WebSocket",
        ),
        (answering(response("503 Service Unavailable", body=b"full")), "full (503)"),
        (answering(response("502 Bad Gateway", body=b"<p>", kind="text/html")), "the answer is HTTP 502"),
        (answering(b"HTTP/1.0 502 Bad Gateway\r\n\r\nno length"), "the answer is HTTP 502"),
        (answering(response("408 Request Timeout")), "the answer is HTTP 408"),
    ],
)
async def test_after_an_answer_that_says_nothing_for_good_it_comes_back(peer: Peer, reason: str) -> None:
    served = ServedModel()
    async with program(peer) as found:
        began = trio.current_time()
        lost = await found.event(Lost)
        assert lost.reason.startswith(reason)
        assert trio.current_time() - began < CONNECT_SECONDS + 1
        found.dialer.peer = served
        await found.event(Entered)
        assert found.of(Ended) == []


@pytest.mark.parametrize(
    "header",
    [
        "Connection: \xe9",
        "Sec-WebSocket-Extensions: \xff",
        "Sec-WebSocket-Protocol: \xe9",
        "Sec-WebSocket-Protocol: other",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "A: b\r\n c",
    ],
)
async def test_an_odd_header_lets_nobody_down(header: str) -> None:
    served = ServedModel()
    name, _, value = header.partition(": ")

    async def peer(stream: trio.abc.Stream) -> None:
        await stream.send_all(accepting(await head_of(stream), **{name: value}))

    async with program(peer) as found:
        await found.event(Lost)
        found.dialer.peer = served
        await found.event(Entered)


@pytest.mark.parametrize(
    ("peer", "ended"),
    [
        (
            answering(response("401 Unauthorized", body=b"Unauthorized\n")),
            Ended(Ending.REFUSED, "Unauthorized (401)"),
        ),
        (
            answering(response("404 Not Found", body=b"<h1>", kind="text/html")),
            Ended(Ending.REFUSED, "the answer is HTTP 404, and no chatroom's"),
        ),
        (
            answering(response("403 Forbidden", body=b"one\ntwo\n")),
            Ended(Ending.REFUSED, "the answer is HTTP 403, and no chatroom's"),
        ),
        (
            answering(response("403 Forbidden", body=b"x" * 501)),
            Ended(Ending.REFUSED, "the answer is HTTP 403, and no chatroom's"),
        ),
        (
            answering(response("200 OK", body=b"<html>", kind="text/html")),
            Ended(Ending.ALIEN, "the answer is HTTP 200, and no chatroom's"),
        ),
        (
            answering(response("301 Moved Permanently", "Location: /x")),
            Ended(Ending.ALIEN, "the answer is HTTP 301, and no chatroom's"),
        ),
        (
            answering(response("204 No Content")),
            Ended(Ending.ALIEN, "the answer is HTTP 204, and no chatroom's"),
        ),
        # without an end that anybody could wait for
        (
            answering(b"HTTP/1.0 403 Forbidden\r\n\r\nno length"),
            Ended(Ending.REFUSED, "the answer is HTTP 403, and no chatroom's"),
        ),
        (
            hanging(b"HTTP/1.1 401 Unauthorized\r\n\r\n", *[b"x" * 1000] * 200),
            Ended(Ending.REFUSED, "the answer is HTTP 401, and no chatroom's"),
        ),
        (
            hanging(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 100, pause=1.0),
            Ended(Ending.ALIEN, "the answer is HTTP 200, and no chatroom's"),
        ),
        (
            hanging(b"HTTP/1.1 404 Not Found\r\n"),
            Ended(Ending.REFUSED, "the answer is HTTP 404, and no chatroom's"),
        ),
        (
            answering(b"\x15\x03\x01\x00\x02\x02\x50"),
            Ended(Ending.ALIEN, "what answers there speaks TLS: is it wss:// instead of ws://?"),
        ),
    ],
)
async def test_after_an_answer_for_good_it_ends(peer: Peer, ended: Ended) -> None:
    async with program(peer) as found:
        await found.event(Ended)
    assert found.shown == [ended]
    assert found.dialer.opened == 1


@pytest.mark.parametrize(
    ("asked", "least"),
    [("7", 7), ("0", 0), ("9999999999", 0), ("-5", 0), ("soon", 0), ("1.5", 0), ("²", 0), ("999999", 3600)],
)
async def test_retry_after(asked: str, least: float) -> None:
    answer = response("429 Too Many Requests", body=b"later").replace(
        b"\r\n\r\n", f"\r\nRetry-After: {asked}\r\n\r\n".encode("latin-1"), 1
    )
    async with program(answering(answer)) as found:
        lost = await found.event(Lost)
        assert lost.reason == "later (429)"
        assert least <= lost.seconds <= least + 1


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unreachable("Connection refused"), Lost), (Untrusted("it isn't trusted"), Ended)],
)
async def test_what_the_dialer_says_is_told(error: Exception, event: type[Any]) -> None:
    served = ServedModel()
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, served))
        found.dialer.fails = [error]
        nursery.start_soon(found.run)
        told = await found.event(event)
        assert told.reason == str(error)
        if event is Lost:
            await found.event(Entered)
        nursery.cancel_scope.cancel()


# Frames that break rules


BAD_FRAMES = {
    "reserved bits": b"\xf1\x01a",
    "an unknown opcode": b"\x83\x00",
    "a masked frame": b"\x81\x81\x00\x00\x00\x00a",
    "no UTF-8": frame_bytes(b"\xff\xfe"),
    "a continuation of nothing": frame_bytes(b"a", 0x80),
    "a control frame in pieces": frame_bytes(b"", 0x09),
    "a control frame too long": frame_bytes(b"x" * 126, 0x89),
    "a length with its highest bit": b"\x81\x7f" + b"\xff" * 8,
    "a close of one byte": frame_bytes(b"\x03", 0x88),
    "a close code out of range": close_bytes(999),
    "a close code that nobody sends": close_bytes(1006),
    "a close without UTF-8": frame_bytes(struct.pack("!H", 1000) + b"\xff", 0x88),
    "bytes that end within a frame": frame_bytes(b"x" * 100)[:50],
    "noise": bytes(range(255, 0, -1)) * 10,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
@pytest.mark.parametrize("before", [b"", welcome()])
async def test_after_frames_that_break_rules_it_comes_back(name: str, before: bytes) -> None:
    served = ServedModel()
    async with program(framing(before, BAD_FRAMES[name])) as found:
        lost = await found.event(Lost)
        assert lost.reason
        found.dialer.peer = served
        await found.until(lambda: served.targets)
        assert found.of(Ended) == []


@pytest.mark.parametrize("before", [b"", welcome()])
async def test_a_binary_frame_is_no_chatrooms(before: bytes) -> None:
    async with program(framing(before, frame_bytes(b"\x00", 0x82), ends=False)) as found:
        ended = await found.event(Ended)
        assert ended == Ended(Ending.ALIEN, "what answers there is no chatroom")


async def test_a_text_that_is_no_frame_at_first_is_no_chatrooms() -> None:
    async with program(framing(frame_bytes(b"hello"), ends=False)) as found:
        assert (await found.event(Ended)).ending is Ending.ALIEN


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_frame_that_is_too_large_ends_the_connection_and_refuses_nothing(in_pieces: bool) -> None:
    served = ServedModel()
    piece = b"x" * (LONGEST_FRAME // 8)

    async def peer(stream: trio.abc.Stream) -> None:
        await stream.send_all(accepting(await head_of(stream)) + welcome())
        await trio.sleep(1)
        if in_pieces:
            await stream.send_all(frame_bytes(piece, 0x01))
            for _ in range(8):
                await stream.send_all(frame_bytes(piece, 0x00))
        else:
            await stream.send_all(frame_bytes(piece * 8 + b"x"))
        await stream.send_all(close_bytes(1009))
        await trio.sleep_forever()

    async with program(peer) as found:
        await found.event(Entered)
        found.client.say("hi")
        lost = await found.event(Lost)
        assert lost.reason == "it sends a frame that is too large"
        assert found.of(Settled) == []
        found.dialer.peer = served
        settled = await found.event(Settled)
        assert settled.error is None


async def test_a_frame_of_the_largest_size_is_taken() -> None:
    padding = "x" * (LONGEST_FRAME - 300)
    async with program(framing(welcome(data={"message": padding, "members": []}), ends=False)) as found:
        await found.event(Entered)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4001, 4008, 4999]
)
async def test_after_each_close_code_it_comes_back(code: int) -> None:
    async with program(framing(welcome(), close_bytes(code, "why"), ends=False)) as found:
        assert (await found.event(Lost)).reason == "why"
        await found.event(Entered, 2)


async def test_after_a_close_code_that_the_library_does_not_know_it_comes_back() -> None:
    async with program(framing(welcome(), close_bytes(1014, "why"), ends=False)) as found:
        await found.event(Entered, 2)


async def test_a_close_without_a_code() -> None:
    async with program(framing(welcome(), frame_bytes(b"", 0x88), ends=False)) as found:
        assert (await found.event(Lost)).reason == "the connection was lost (1005)"


@pytest.mark.parametrize("code", [4500, 4503, 4510, 4599])
async def test_after_some_close_codes_it_does_not(code: int) -> None:
    async with program(framing(welcome(), close_bytes(code, "kicked"), ends=False)) as found:
        assert await found.event(Ended) == Ended(Ending.REFUSED, "sent away: kicked")
        assert found.dialer.opened == 1


async def test_what_stands_before_a_close_is_shown() -> None:
    record = {"event": "message", "data": {}, "room": "general", "id": 1}
    records = [frame_bytes(json.dumps({**record, "id": number}).encode()) for number in range(1, 50)]
    async with program(framing(welcome(), *records, close_bytes(4510, "kicked"))) as found:
        await found.event(Ended)
    assert found.ids == list(range(1, 50))


@pytest.mark.parametrize(
    "last", [b"\x89\x00", b"\x89\x00" * 1000, frame_bytes(b"{}"), close_bytes(1012), b"\xff"]
)
async def test_whatever_a_server_sends_while_the_client_goes(last: bytes) -> None:
    async def peer(stream: trio.abc.Stream) -> None:
        await stream.send_all(accepting(await head_of(stream)) + welcome())
        while not (await stream.receive_some()).startswith(b"\x88"):
            pass
        await stream.send_all(last)
        await trio.sleep_forever()

    async with program(peer) as found:
        await found.event(Entered)
    assert found.ended == Ended(Ending.STOPPED)


async def test_an_epoch_that_cannot_be_sent_back_is_no_chatrooms() -> None:
    async with program(framing(welcome(epoch="\ud800"), ends=False)) as found:
        assert (await found.event(Ended)).ending is Ending.ALIEN


async def test_a_draft_that_is_no_text_can_be_sent() -> None:
    served = ServedModel()
    async with program(served) as found:
        found.client.say("\ud800")
        assert (await found.event(Settled)).error is None


NOISE = st.lists(
    st.binary(max_size=40)
    | st.builds(frame_bytes, st.binary(max_size=130) | st.text().map(str.encode), st.integers(0, 255))
    | objects().map(lambda found: frame_bytes(json.dumps(found).encode()))
    | st.builds(close_bytes, st.integers(0, 65535), st.text(max_size=20)),
    max_size=8,
)
HEADS = st.lists(
    st.binary(max_size=30)
    | st.sampled_from(
        [
            b"HTTP/1.1 101 Switching Protocols\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 403 No\r\n",
            b"Connection: Upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\n",
            b"Content-Length: x\r\n",
            b"Sec-WebSocket-Accept: x\r\n",
            b"\r\n",
            b"Retry-After: 1\r\n",
            b"Content-Type: text/plain\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
        ]
    ),
    max_size=12,
)


async def survived(peer: Peer) -> None:
    """Whatever the peer does, the client comes back or ends, and can be stopped."""
    async with program(peer) as found:
        await trio.sleep(50)
        assert found.of(Lost) or found.of(Ended) or found.of(Entered)


@settings(max_examples=150, deadline=None)
@given(NOISE, st.booleans(), st.booleans())
def test_whatever_frames_come_nothing_of_the_library_comes_out(
    pieces: list[bytes], joined: bool, ends: bool
) -> None:
    peer = framing(*[welcome()] * joined, *pieces, ends=ends)
    run_on_virtual_clock(lambda: survived(peer))


@settings(max_examples=150, deadline=None)
@given(HEADS, st.booleans())
def test_whatever_answers_a_handshake_nothing_of_the_library_comes_out(
    pieces: list[bytes], ends: bool
) -> None:
    peer = answering(*pieces, ends=ends)
    run_on_virtual_clock(lambda: survived(peer))


# Writes


async def test_a_server_that_takes_nothing_is_given_up() -> None:
    async with program(chattering) as found:
        await found.event(Entered)
        began = trio.current_time()
        found.dialer.stall()
        found.client.say("hi")
        lost = await found.event(Lost)
        assert lost.reason == "the server takes nothing"
        assert SEND_SECONDS <= trio.current_time() - began < SEND_SECONDS + 2


async def chattering(stream: trio.abc.Stream) -> None:
    """Says something now and then."""
    await stream.send_all(accepting(await head_of(stream)) + welcome())
    while True:
        await trio.sleep(5)
        await stream.send_all(frame_bytes(b'{"event":"pong","data":{}}'))


# Stopping


async def stopped(found: Program) -> None:
    """Stop it; `run` has to end in time."""
    found.client.stop()
    found.client.stop()
    began = trio.current_time()
    await found.until(lambda: found.ended, CLOSE_SECONDS + 0.2)
    assert trio.current_time() - began <= CLOSE_SECONDS + 0.2
    assert found.ended == found.shown[-1] == Ended(Ending.STOPPED)


@pytest.mark.parametrize("after", [0.0, 0.05, 5.0])
async def test_stopped_while_it_dials(after: float) -> None:
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, silent))

        async def open_never() -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

        found.dialer.open = open_never  # type: ignore[method-assign]
        nursery.start_soon(found.run)
        await trio.sleep(after)
        await stopped(found)


async def test_stopped_at_the_moment_at_which_the_stream_is_open() -> None:
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, silent))
        dial = found.dialer.open

        async def open_and_stop() -> trio.abc.Stream:
            stream = await dial()
            found.client.stop()
            return stream

        found.dialer.open = open_and_stop  # type: ignore[method-assign]
        nursery.start_soon(found.run)
        await stopped(found)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "peer",
    [silent, hanging(b"HTTP/1.1 200 OK\r\n\r\n"), framing(ends=False), framing(welcome(), ends=False)],
)
@pytest.mark.parametrize("after", [0.0, 0.01, 5.0])
async def test_stopped_while_it_shakes_hands_joins_or_is_in(peer: Peer, after: float) -> None:
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, peer))
        nursery.start_soon(found.run)
        await trio.sleep(after)
        await stopped(found)
        nursery.cancel_scope.cancel()


async def test_stopped_while_it_waits() -> None:
    async with program(answering(response("503 Full", "Retry-After: 3000"))) as found:
        await found.event(Lost)
        assert found.client.core.state is State.WAITING
        await stopped(found)


async def test_stopped_while_a_write_waits() -> None:
    async with program(chattering) as found:
        await found.event(Entered)
        found.dialer.stall()
        found.client.say("hi")
        await trio.sleep(1)
        await stopped(found)


async def test_stopped_by_the_program_that_shows_an_event() -> None:
    served = ServedModel()
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, served))

        async def stop(event: Event) -> None:
            if isinstance(event, Entered):
                found.client.stop()

        found.busy = stop
        await found.run()
        assert [type(each) for each in found.shown] == [Entered, Ended]
        nursery.cancel_scope.cancel()


async def test_stopped_before_it_ran() -> None:
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, silent))
        found.client.stop()
        await found.run()
        assert (found.shown, found.dialer.opened) == ([Ended(Ending.STOPPED)], 0)


async def test_cancelled_it_leaves_nothing_behind() -> None:
    served = ServedModel()
    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, served))
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after, scope, found)
            await found.run()
        assert scope.cancelled_caught
        await found.until(lambda: not served.model.connections)


async def cancel_after(scope: trio.CancelScope, found: Program) -> None:
    await found.event(Entered)
    scope.cancel()


# Tokens


async def test_without_a_token_at_first_it_does_not_begin() -> None:
    def none() -> str:
        raise StartError("a token is needed")

    async with trio.open_nursery() as nursery:
        dialer = MemoryDialer(nursery, silent)
        client = Client(dialer, none, room="general", username=None, begin=Begin.NOW)
        with pytest.raises(StartError):
            await client.run(taking(0))
        assert dialer.opened == 0


def auths(served: ServedModel) -> list[str]:
    return [each["data"]["token"] for each in served.commands if each["event"] == "auth"]


async def test_a_token_that_ends_is_renewed_as_soon_as_there_is_another() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        found.token = "second"
        await trio.sleep(60)
        assert auths(served) == [], "nobody has said that the first one ends"
        found.token = TOKEN
        served.connection.tell({"event": "expiring", "data": {"in": 60}})
        await found.event(Expiring)
        await trio.sleep(30)
        assert auths(served) == [], "an unchanged one isn't shown"
        found.token = "second"
        await trio.sleep(RENEW_SECONDS + 1)
        assert auths(served) == ["second"]
        found.token = "third"
        await trio.sleep(60)
        assert auths(served) == ["second"], "the second one hasn't ended"
        served.connection.tell({"event": "expiring", "data": {"in": 60}})
        await trio.sleep(1)
        assert auths(served) == ["second", "third"]
        assert found.of(Lost) == []


async def test_a_token_is_renewed_behind_a_switch() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        served.deaf_to = {"switch_room"}
        found.client.switch("ops")
        await found.until(lambda: served.commands)
        found.token = "second"
        served.connection.tell({"event": "expiring", "data": {"in": 60}})
        await trio.sleep(2)
        assert auths(served) == []
        cid = served.commands[0]["cid"]
        stand = {"members": [], "epoch": "e0", "last_id": 0, "replay": 0}
        served.connection.tell({"event": "switched", "data": {"room": "ops"}, "cid": cid, **stand})
        await found.until(lambda: auths(served) == ["second"])


async def test_a_token_that_has_ended_is_followed_by_a_fresh_one() -> None:
    served = ServedModel()
    async with program(served) as found:
        await found.event(Entered)
        served.connection.tell({"event": "expiring", "data": {"in": 1}})
        await found.event(Expiring)
        found.token = "second"
        served.connection.close(4001, "the token has expired")
        await found.event(Entered, 2)
        assert served.headers[1][b"authorization"] == b"Bearer second"


async def test_while_a_fresh_token_cannot_be_had_the_last_one_stays() -> None:
    served = ServedModel()
    failing = False

    def token() -> str:
        if failing:
            raise StartError("the file isn't there")
        return TOKEN

    async with trio.open_nursery() as nursery:
        found = Program(MemoryDialer(nursery, served))
        found.client = Client(found.dialer, token, room="general", username=None, begin=Begin.NOW)
        nursery.start_soon(found.run)
        await found.event(Entered)
        failing = True
        served.connection.tell({"event": "expiring", "data": {"in": 1}})
        await trio.sleep(20)
        served.connection.close(1012, "")
        await found.event(Entered, 2)
        assert served.headers[1][b"authorization"] == f"Bearer {TOKEN}".encode()
        nursery.cancel_scope.cancel()
