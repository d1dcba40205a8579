"""Requests with bodies at the front door: how they are read, what follows, and what ends the connection."""

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.core.errors import Refusal
from chatroom.core.http import Request, Response
from chatroom.core.limits import Limits
from chatroom.http.api import Call, Caller, Route
from chatroom.http.frontdoor import CONTINUE, Admitted, receive
from tests.support.http_transport import WHOLE, Cuts, HttpClient
from tests.unit.http.test_frontdoor import GET, PEER, Site, answers

LIMITS = Limits(frame_bytes=100)
PATH = "/rooms/general/messages"
STREAM = b"GET /rooms/general/events HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes = b"hello", *headers: str, length: int | None = None, path: str = PATH) -> bytes:
    size = () if "Transfer-Encoding: chunked" in headers else (f"Content-Length: {length or len(body)}",)
    lines = (f"POST {path} HTTP/1.1", "Host: a", *size, *headers, "", "")
    return "\r\n".join(lines).encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@dataclass
class Rooms:
    """Answers with the body, and counts what is under way."""

    site: Site
    refusals: list[Refusal] = field(default_factory=list)
    refuse_body: Refusal | None = None
    under_way: int = 0
    most: int = 0
    closed: int = 0
    drains_meanwhile: bool = False

    def begin(self, request: Request, asked: Route) -> Caller[None]:
        if self.refusals:
            raise self.refusals.pop()
        self.under_way = 1
        self.most += 1
        call = Call(asked.command, "general", {}, None, False, request.method == "HEAD")
        return Caller(request.peer, None, "alice", call)

    async def carry_out(self, caller: Caller[None], body: bytes) -> Response | str:
        await trio.sleep(0.01)
        self.site.draining = self.site.draining or self.drains_meanwhile
        if self.refuse_body:
            raise self.refuse_body
        return "stream" if caller.call.command == "events" else Response(201, body)

    def done(self) -> None:
        self.under_way = 0

    def close(self) -> None:
        self.done()
        self.closed += 1


@dataclass
class Talk:
    """What came of some bytes, sent half a second apart."""

    raw: bytes
    admitted: Admitted[str] | None
    site: Site
    rooms: Rooms

    @property
    def told(self) -> list[tuple[int, bytes]]:
        return [(status, body) for status, _, body in answers(self.raw)]


async def talk(
    *pieces: bytes,
    rooms: Rooms | None = None,
    cuts: Cuts = WHOLE,
    ends: bool = False,
    site: Site | None = None,
) -> Talk:
    client = HttpClient(cuts)
    rooms = rooms or Rooms(site or Site())

    async def send() -> None:
        for number, piece in enumerate(pieces):
            await trio.sleep(0.5 if number else 0)
            await client.send(piece)
        if ends:
            await client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        admitted = await receive(client.transport, rooms.site, LIMITS, PEER, api=rooms)
        nursery.cancel_scope.cancel()
    assert (rooms.under_way, rooms.closed) == (0, 1)
    raw = b"" if admitted else await client.receive_all()
    return Talk(raw, admitted, rooms.site, rooms)


async def test_a_body_is_read_and_another_request_may_follow(autojump_clock: trio.testing.MockClock) -> None:
    found = await talk(post(b"one"), post(b"two"), GET)
    assert found.told == [(201, b"one"), (201, b"two"), (200, b"GET /")]
    assert found.rooms.most == 2


async def test_requests_with_bodies_may_come_at_once(autojump_clock: trio.testing.MockClock) -> None:
    chunks = post(chunked(b"th", b"ree"), "Transfer-Encoding: chunked")
    found = await talk(post(b"one") + post(b"two") + chunks + GET)
    assert found.told == [(201, b"one"), (201, b"two"), (201, b"three"), (200, b"GET /")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_the_answers_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    data = post(b"one") + post(chunked(b"t", b"wo"), "Transfer-Encoding: chunked") + GET

    async def main() -> None:
        assert (await talk(data, cuts=cuts)).told == [(201, b"one"), (201, b"two"), (200, b"GET /")]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_an_empty_body_is_one(autojump_clock: trio.testing.MockClock) -> None:
    without = f"POST {PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    found = await talk(post(b""), without, post(chunked(), "Transfer-Encoding: chunked"), GET)
    assert found.told == [(201, b""), (201, b""), (201, b""), (200, b"GET /")]


async def test_a_slow_body_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    found = await talk(post(b"hel", length=5))
    assert found.told == [(408, b"The body took too long")]
    assert LIMITS.head_seconds <= trio.current_time() - began < LIMITS.head_seconds + 2


async def test_a_body_that_trickles_has_one_deadline(autojump_clock: trio.testing.MockClock) -> None:
    found = await talk(post(b"", length=30), *[b"x"] * 29)
    assert found.told == [(408, b"The body took too long")]


async def test_a_body_that_is_cut_short_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    assert (await talk(post(b"hel", length=5), ends=True)).told == [(400, b"The body is incomplete")]


@pytest.mark.parametrize(
    "data",
    [
        post(b"x" * 101),
        post(b"", length=10**17),
        post(chunked(b"x" * 60, b"x" * 41), "Transfer-Encoding: chunked"),
    ],
)
async def test_a_large_body_is_refused_and_ends_it(
    data: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    found = await talk(data + GET)
    assert found.told == [(413, b"The body is too large: at most 100 bytes")]
    assert b"Connection: close" in found.raw


async def test_bad_chunks_end_it(autojump_clock: trio.testing.MockClock) -> None:
    found = await talk(post(b"nonsense\r\n", "Transfer-Encoding: chunked"), GET)
    assert found.told == [(400, b"Malformed chunk")]


async def test_who_expects_it_is_told_to_go_on(autojump_clock: trio.testing.MockClock) -> None:
    found = await talk(post(b"", "Expect: 100-continue", length=5), b"hello" + GET)
    assert found.raw.startswith(CONTINUE)
    found.raw = found.raw.removeprefix(CONTINUE)
    assert found.told == [(201, b"hello"), (200, b"GET /")]


async def test_who_does_not_wait_for_it_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    assert (await talk(post(b"hello", "Expect: 100-continue"))).told == [(201, b"hello")]


async def test_nobody_is_told_to_go_on_who_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms(Site(), refusals=[Refusal(401, "Unauthorized")])
    found = await talk(post(b"", "Expect: 100-continue", length=5), rooms=rooms)
    assert found.told == [(401, b"Unauthorized")]
    assert b"Connection: close" in found.raw
    large = await talk(post(b"", "Expect: 100-continue", length=500))
    assert [status for status, _ in large.told] == [413]


async def test_a_refusal_before_the_body_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms(Site(), refusals=[Refusal(403, "No right")])
    found = await talk(post(b"GET / HTTP/1.1\r\n\r\n"), rooms=rooms)
    assert found.told == [(403, b"No right")]
    assert found.site.refusals == [(403, PATH)]


async def test_a_refusal_without_a_body_keeps_it(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms(Site(), refusals=[Refusal(403, "No right")])
    assert (await talk(post(b"") + GET, rooms=rooms)).told == [(403, b"No right"), (200, b"GET /")]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 429, 503])
async def test_a_refusal_behind_the_body_keeps_it(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    rooms = Rooms(Site(), refuse_body=Refusal(status, "no", (("Retry-After", "3"),)))
    found = await talk(post() + GET, rooms=rooms)
    assert found.told == [(status, b"no"), (200, b"GET /")]
    assert b"Retry-After: 3\r\n" in found.raw
    assert found.site.refusals == [(status, PATH)]


async def test_a_read_with_a_body_is_answered_and_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    data = post(b"hello").replace(b"POST", b"GET")
    found = await talk(data + GET)
    assert found.told == [(201, b"")]
    assert b"Connection: close" in found.raw


async def test_pages_of_any_origin_may_read_answers_and_refusals(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rooms = Rooms(Site(), refusals=[Refusal(401, "Unauthorized")])
    preflight = f"OPTIONS {PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    unknown = b"GET /rooms/x HTTP/1.1\r\nHost: a\r\n\r\n"
    found = await talk(post(b"") + post() + preflight + unknown + GET, rooms=rooms)
    headers = [headers for _, headers, _ in answers(found.raw, ["POST", "POST", "OPTIONS", "GET", "GET"])]
    origins = [each.get("access-control-allow-origin") for each in headers]
    assert origins == ["*", "*", "*", "*", None]
    assert "idempotency-key" in headers[2]["access-control-allow-headers"].lower()
    assert "DELETE" in headers[2]["access-control-allow-methods"]


async def test_a_stop_refuses_requests_and_ends_connections(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(draining=True)
    found = await talk(post(), rooms=Rooms(site))
    assert found.told == [(503, b"Restarting")]
    found = await talk(post() + GET, rooms=Rooms(Site(), drains_meanwhile=True))
    assert found.told == [(201, b"hello")]
    assert b"Connection: close" in found.raw


async def test_a_stop_while_a_body_is_read_refuses_it(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms(Site())

    async def drain() -> None:
        await trio.sleep(0.2)
        rooms.site.draining = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        found = await talk(post(b"hel", length=5), b"lo", rooms=rooms)
    assert found.told == [(503, b"Restarting")]


async def test_a_stream_is_admitted_with_the_head_of_its_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = await talk(post() + STREAM + b"more")
    assert found.admitted is not None
    assert (found.admitted.admission, found.admitted.upgrade, found.admitted.trailing) == (
        "stream",
        None,
        b"more",
    )
    head = found.admitted.head
    assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
    assert b"\r\nContent-Type: text/event-stream\r\n" in head
    assert b"\r\nAccess-Control-Allow-Origin: *\r\n" in head
    assert head.endswith(b"Connection: close\r\n\r\n")


async def test_without_rooms_there_are_no_such_paths(autojump_clock: trio.testing.MockClock) -> None:
    client = HttpClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, post())
        assert await receive(client.transport, Site(), LIMITS, PEER) is None
    assert answers(await client.receive_all())[0][0] == 404
