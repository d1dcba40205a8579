"""Requests about rooms: what they do, what they are answered, and when they are refused."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import OPERATOR
from chatroom.connections.api import READ_SECONDS
from chatroom.connections.visitor import ANSWER_SECONDS
from chatroom.core.errors import Unavailable
from chatroom.core.http import Response
from chatroom.core.limits import Limits
from chatroom.core.messages import Draft, Failed, Page, RoomSummary, Unknown
from chatroom.engines.memory import MemoryEngine
from chatroom.http.api import Call, Caller
from chatroom.http.handshake import CORS_HEADERS
from chatroom.http.site import Admission
from tests.support.engines import Committed, HeldEngine
from tests.support.line import PEER, say
from tests.support.requests import ALL, MODERATOR, Desk, RawJson, open_desk

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def post(desk: Desk, text: str = "hello", **options: Any) -> tuple[int, Any]:
    return await desk.ask("message", text.encode(), **options)


# Posting


async def test_a_post_is_stored_and_shown_and_answered() -> None:
    async with open_desk() as desk:
        bob = await desk.house.call("bob")
        status, answer = await post(desk, "deploy done")
        assert (status, answer) == (
            201,
            {"id": 1, "ts": answer["ts"], "epoch": "epoch1", "room": "r", "username": "alice"},
        )
        (frame,) = bob.named("message")
        assert (frame["data"], frame["id"]) == ({"username": "alice", "text": "deploy done"}, 1)
        assert bob.named("joined") == []
        assert desk.house.names_in("r") == ["bob"]


async def test_a_body_is_json_or_the_text_itself() -> None:
    async with open_desk() as desk:
        assert (await desk.ask("message", {"text": " hi ", "more": 1}))[0] == 201
        assert (await post(desk, ' {"text":"hi"}\n'))[0] == 201
        _, page = await desk.ask("history")
        assert [each["text"] for each in page["messages"]] == ["hi", '{"text":"hi"}']


BODIES: list[tuple[object, int, str]] = [
    (b"", 400, "text is empty"),
    (b" \n", 400, "text is empty"),
    (b"\xff", 400, "The body is not UTF-8"),
    (b"x" * 4001, 413, "text is longer than 4000 characters"),
    ({"text": "x" * 4001}, 413, "text is longer than 4000 characters"),
    ({}, 400, "text is empty"),
    ({"text": ""}, 400, "text is empty"),
    ({"text": " ", "cid": "c"}, 400, "text is empty"),
    ({"text": 5}, 400, "text must be a string"),
    ({"text": None}, 400, "text must be a string"),
    ({"text": "x", "cid": ""}, 400, "cid must be a string of 1 to 64 characters"),
    ({"text": "x", "cid": 5}, 400, "cid must be a string of 1 to 64 characters"),
    (["x"], 400, "Not an object"),
    ("x", 400, "Not an object"),
    (None, 400, "Not an object"),
    ({"text": "\ud800"}, 400, "A lone surrogate is not text"),
]


@pytest.mark.parametrize(("body", "status", "text"), BODIES)
async def test_what_no_message_could_be_is_refused(body: object, status: int, text: str) -> None:
    async with open_desk() as desk:
        assert await desk.ask("message", body) == (status, text)
        assert desk.house.harness.rooms.get("r") is None


RAW = {
    b"{": "Invalid JSON",
    b"": "Invalid JSON",
    b'{"text":"a"} x': "Invalid JSON",
    b'{"text":NaN}': "Invalid JSON",
    b'{"a":' + b"[" * 16 + b"]" * 16 + b"}": "Invalid JSON",
    b'{"text":"a","text":"b"}': "A key is given twice",
    b'{"text":"a","x":{"y":1,"y":2}}': "A key is given twice",
    b"\xef\xbb\xbf{}": "Invalid JSON",
}


@pytest.mark.parametrize(("raw", "text"), RAW.items())
async def test_json_is_as_strict_as_in_frames(raw: bytes, text: str) -> None:
    async with open_desk() as desk:
        assert await desk.ask("message", RawJson(raw)) == (400, text)


async def test_a_retry_is_told_what_is_stored() -> None:
    async with open_desk() as desk:
        first = await desk.ask("message", {"text": "hi", "cid": "c1"})
        again = await desk.ask("message", {"text": "hi"}, key="c1")
        assert first[0] == 201
        assert again == (200, first[1] | {"duplicate": True})
        assert await desk.ask("message", {"text": "hi", "cid": "c1"}, key="c1") == again
        assert await post(desk, "other", key="c1") == (409, "This cid stands for something else")
        assert await desk.ask("message", {"text": "hi", "cid": "c1"}, key="c2") == (
            400,
            "cid and Idempotency-Key are different",
        )
        assert (await post(desk, "hi", key="c1", username="bob"))[0] == 201


async def test_posts_and_sockets_share_their_keys() -> None:
    async with open_desk() as desk:
        alice = await desk.house.call("alice")
        await alice.send(say("hi", "c1"))
        status, answer = await post(desk, "hi", key="c1")
        assert (status, answer["id"], answer["duplicate"]) == (200, 1, True)


async def test_a_room_is_given_up_when_the_connection_is_done() -> None:
    async with open_desk() as desk:
        rooms = desk.house.harness.rooms
        await post(desk)
        await post(desk, room="s")
        await desk.house.harness.settle()
        assert rooms.get("r") is None
        assert (room := rooms.get("s")) is not None
        assert (room.refcount, len(rooms.visitors)) == (1, 0)
        desk.visits.end()
        await desk.house.harness.settle()
        assert len(rooms) == 0


async def test_a_kept_connection_has_its_room_opened_once() -> None:
    class Counting(MemoryEngine):
        opened = 0

        def open(self, room: str, opened: Any) -> None:
            self.opened += 1
            super().open(room, opened)

    engine = Counting(lambda: "e")
    async with open_desk(engine=engine) as desk:
        for _ in range(5):
            assert (await post(desk))[0] == 201
        assert (await desk.ask("history"))[0] == 200
        assert engine.opened == 1


# Pace


async def test_a_post_is_refused_where_a_socket_would_be_paced() -> None:
    async with open_desk(pace=(1.0, 3), limits=Limits(message_rate=1, message_burst=3)) as desk:
        alice = await desk.house.call("alice", limits=desk.limits)
        await alice.send(say("one"))
        assert [(await post(desk))[0] for _ in range(2)] == [201, 201]
        for _ in range(3):
            refusal = await desk.refusal("message", b"x")
            assert (refusal.status, refusal.text) == (429, "Too many messages of this username")
            assert refusal.headers == (("Retry-After", "1"),)
        assert (await post(desk, username="bob"))[0] == 201
        await trio.sleep(1)
        assert (await post(desk))[0] == 201
        assert (await desk.ask("message", b""))[1] == "text is empty"


async def test_reading_has_a_pace_by_its_weight() -> None:
    async with open_desk(pace=(10.0, 3)) as desk:
        statuses = [(await desk.ask("members"))[0] for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert (await desk.refusal("history")).headers == (("Retry-After", "1"),)
        assert (await desk.refusal("rooms", room="")).status == 429


# What becomes of a post in a store that has its troubles


class Outcomes(MemoryEngine):
    """Each draft has this outcome."""

    def __init__(self, outcome: Unknown | Failed) -> None:
        super().__init__(lambda: "e")
        self.outcome = outcome

    def append(self, drafts: Sequence[Draft], committed: Committed) -> None:
        committed([self.outcome] * len(drafts))


async def test_what_is_not_known_may_be_sent_again() -> None:
    async with open_desk(engine=Outcomes(Unknown())) as desk:
        refusal = await desk.refusal("message", b"x", key="k")
        assert (refusal.status, refusal.headers) == (503, (("Retry-After", "1"),))
        assert refusal.text == "Not known to be stored: send it again with the same key"
        assert desk.house.harness.rooms.unavailable == 1
    async with open_desk(engine=Outcomes(Failed())) as desk:
        assert await post(desk) == (500, "Not stored")


async def test_a_silent_store_is_not_waited_for_long() -> None:
    engine = HeldEngine()
    async with open_desk(engine=engine) as desk:
        bob = await desk.house.call("bob")
        began = trio.current_time()
        assert (await post(desk, "late", key="k"))[0] == 503
        assert ANSWER_SECONDS <= trio.current_time() - began <= ANSWER_SECONDS + 1
        rooms = desk.house.harness.rooms
        assert rooms.outstanding == 1
        desk.visits.end()
        engine.go.set()
        await desk.house.harness.settle()
        assert bob.texts == ["late"]
        assert (rooms.outstanding, len(rooms.visitors)) == (0, 0)
        assert (await post(desk, "late", key="k"))[1]["duplicate"]
        assert (room := rooms.get("r")) is not None
        assert room.refcount == 1


async def test_a_request_may_be_cancelled_while_its_draft_is_under_way() -> None:
    engine = HeldEngine()
    async with open_desk(engine=engine) as desk:
        with trio.move_on_after(1):
            await post(desk, "hi")
        desk.visits.end()
        engine.go.set()
        await desk.house.harness.settle()
        assert len(desk.house.harness.rooms) == 0
        assert (await desk.ask("history"))[1]["messages"][0]["text"] == "hi"


async def test_a_room_that_cannot_be_opened_is_unavailable() -> None:
    class Shut(MemoryEngine):
        def open(self, room: str, opened: Any) -> None:
            opened(Unavailable("no"))

    async with open_desk(engine=Shut(lambda: "e")) as desk:
        refusal = await desk.refusal("message", b"x")
        assert (refusal.status, refusal.text) == (503, "The room can't be read now")
        assert refusal.headers == (("Retry-After", "1"),)


async def test_a_room_that_is_never_opened_is_unavailable_in_time() -> None:
    class Dead(MemoryEngine):
        opened: Any = None

        def open(self, room: str, opened: Any) -> None:
            self.opened = opened

    engine = Dead(lambda: "e")
    async with open_desk(engine=engine) as desk:
        began = trio.current_time()
        assert (await desk.ask("members"))[0] == 503
        assert trio.current_time() - began == ANSWER_SECONDS
        MemoryEngine.open(engine, "r", engine.opened)
        await desk.house.harness.settle()
        assert len(desk.house.harness.rooms) == 0


async def test_history_that_cannot_be_read_is_unavailable() -> None:
    class Slow(MemoryEngine):
        async def history(self, *_: Any, **__: Any) -> Page:
            await trio.sleep_forever()
            raise AssertionError

    async with open_desk(engine=Slow(lambda: "e")) as desk:
        began = trio.current_time()
        assert await desk.ask("history") == (503, "The history can't be read now")
        assert trio.current_time() - began == READ_SECONDS


# Changes


async def test_messages_are_edited_and_deleted() -> None:
    async with open_desk() as desk:
        bob = await desk.house.call("bob")
        await post(desk, "hello")
        status, entry = await desk.ask("edit", {"text": "hello!", "cid": "e1"}, id=1)
        assert (status, entry) == (200, bob.named("edited")[0])
        assert await desk.ask("edit", b"hello!", id=1, key="e1") == (200, entry | {"duplicate": True})
        assert await desk.ask("edit", b"bye", id=1, username="bob") == (403, "Not your message")
        status, entry = await desk.ask("delete", id=1, key="d1")
        assert (status, entry) == (200, bob.named("deleted")[0])
        assert await desk.ask("delete", id=1) == (200, entry | {"duplicate": True})
        assert await desk.ask("edit", b"x", id=1) == (404, "There is no such message")
        assert await desk.ask("delete", id=99) == (404, "There is no such message")
        assert await desk.ask("delete", {"cid": "d1"}, id=1) == (200, entry | {"duplicate": True})


async def test_a_change_has_the_body_that_it_needs() -> None:
    async with open_desk() as desk:
        await post(desk)
        assert await desk.ask("edit", b"", id=1) == (400, "text is empty")
        assert await desk.ask("edit", {"text": "x", "id": 99}, id=1)
        assert (await desk.ask("history"))[1]["messages"][0]["text"] == "x"
        assert await desk.ask("delete", b"why", id=1) == (400, "A deletion has no text")
        assert await desk.ask("moderate", b"kick") == (415, "Content-Type must be application/json")


async def test_moderators_moderate() -> None:
    async with open_desk() as desk:
        desk.house.moderators = {"carol"}
        bob = await desk.house.call("bob")
        mute = {"action": "mute", "username": "bob", "seconds": 60, "reason": "flood", "cid": "m1"}
        status, entry = await desk.ask("moderate", mute, rights=MODERATOR, username="carol")
        assert (status, entry) == (200, bob.named("moderated")[0])
        refusal = await desk.refusal("message", b"x", username="bob")
        assert (refusal.status, refusal.text) == (403, "You are muted in this room")
        assert refusal.headers == (("Retry-After", "60"),)
        against = mute | {"username": "carol", "cid": "m2"}
        assert await desk.ask("moderate", against, rights=MODERATOR, username="dora") == (
            403,
            "A moderator can't be sanctioned",
        )
        wrong = mute | {"reason": "x" * 101, "cid": "m3"}
        assert (await desk.ask("moderate", wrong, rights=MODERATOR, username="carol"))[0] == 413
        assert (await desk.ask("moderate", {"action": "x"}, rights=MODERATOR))[0] == 400


async def test_moderators_see_the_sanctions_and_what_was_before() -> None:
    async with open_desk() as desk:
        mute = {"action": "mute", "username": "bob", "seconds": 60, "reason": "flood"}
        _, entry = await desk.ask("moderate", mute, rights=MODERATOR, username="carol")
        await desk.ask("moderate", {"action": "kick", "username": "bob"}, rights=MODERATOR, username="carol")
        found = {**entry["data"], "by": "carol"}
        assert await desk.ask("sanctions", rights=MODERATOR) == (200, {"sanctions": [found]})
        status, answer = await desk.ask("sanctions", rights=MODERATOR, all=True)
        assert (status, answer["sanctions"]) == (200, [found])
        assert [(each["id"], each["action"]) for each in answer["past"]] == [(1, "mute"), (2, "kick")]


async def test_what_is_not_in_force_need_not_be_taken_back() -> None:
    async with open_desk() as desk:
        for action in ("unmute", "unban"):
            unset = {"action": action, "username": "bob"}
            assert await desk.ask("moderate", unset, rights=MODERATOR) == (200, {})
        assert (await desk.ask("history"))[1]["messages"] == []


async def test_operators_see_rooms_that_are_hidden() -> None:
    async with open_desk() as desk:
        await post(desk)
        desk.house.hide_rooms = True
        hidden = Desk(desk.house, desk.nursery)
        call = Call("rooms", "", {}, None, False)
        answer = await hidden.api.carry_out(Caller(PEER, OPERATOR, "operator", call), b"", desk.visits)
        assert isinstance(answer, Response)
        assert [room["room"] for room in json.loads(answer.body)["rooms"]] == ["r"]


async def test_who_is_banned_is_told_that_whatever_the_request() -> None:
    async with open_desk() as desk:
        ban = {"action": "ban", "username": "bob", "seconds": 60}
        assert (await desk.ask("moderate", ban, rights=MODERATOR, username="carol"))[0] == 200
        for command, body in (("message", b"x"), ("history", b""), ("members", b""), ("events", b"")):
            resume = {"since": None, "epoch": None} if command == "events" else {}
            refusal = await desk.refusal(command, body, username="bob", **resume)
            assert (refusal.status, refusal.text) == (403, "Banned from this room"), command
            assert refusal.headers == (("Retry-After", "60"),)
        assert (await post(desk, username="bob", rights=MODERATOR))[0] == 201
        assert (await post(desk, username="bob", room="s"))[0] == 201
        forever = {"action": "ban", "username": "bob"}
        await desk.ask("moderate", forever, rights=MODERATOR, username="carol")
        assert (await desk.refusal("message", b"x", username="bob")).headers == ()


# Reading


async def test_history_is_a_page() -> None:
    async with open_desk() as desk:
        for number in range(5):
            await post(desk, f"m{number}", key=f"c{number}")
        status, page = await desk.ask("history", before=4, limit=2)
        assert (status, page["more"], [each["text"] for each in page["messages"]]) == (
            200,
            True,
            ["m1", "m2"],
        )
        assert page["messages"][0].keys() == {"id", "ts", "username", "text", "cid"}
        _, page = await desk.ask("history", after=4)
        assert ([each["id"] for each in page["messages"]], page["more"]) == ([5], False)
        assert await desk.ask("history", before=1, after=1) == (400, "before and after exclude each other")
        assert await desk.ask("history", limit=0) == (400, "limit must be an integer of at least 1")


async def test_members_are_who_is_present() -> None:
    async with open_desk() as desk:
        assert await desk.ask("members") == (200, {"members": []})
        await desk.house.call("bob")
        assert await desk.ask("members") == (200, {"members": ["bob"]})


async def test_rooms_are_those_that_may_be_read() -> None:
    async with open_desk() as desk:
        for room in ("a", "b", "c"):
            await post(desk, room=room)
        rights = Rights((("a", "r"), ("b", "r")))
        _, page = await desk.ask("rooms", room="", rights=rights, limit=1)
        assert ([each["room"] for each in page["rooms"]], page["more"]) == (["a"], True)
        _, page = await desk.ask("rooms", room="", rights=rights, after="a")
        assert ([each["room"] for each in page["rooms"]], page["more"]) == (["b"], False)
        assert await desk.ask("rooms", room="", after="nowhere") == (404, "There is no such room now")
        assert (await desk.ask("rooms", room="", after="a b"))[0] == 400
        desk.house.hide_rooms = True
        hidden = Desk(desk.house, desk.nursery)
        assert await hidden.ask("rooms", room="") == (403, "The list of rooms is hidden here")


async def test_rooms_that_cannot_be_read_are_unavailable() -> None:
    class Shut(MemoryEngine):
        async def summaries(self) -> Sequence[RoomSummary]:
            raise Unavailable("no")

    async with open_desk(engine=Shut(lambda: "e")) as desk:
        assert await desk.ask("rooms", room="") == (503, "The rooms can't be read now")


async def test_a_stream_is_admitted_where_a_slot_is_free() -> None:
    async with open_desk(limits=Limits(message_rate=0, per_user=1)) as desk:
        admission = await desk.carry_out("events", since=4, epoch="e")
        assert isinstance(admission, Admission)
        request = admission.join_request
        assert (request.room, request.since, request.epoch) == ("r", 4, "e")
        refusal = await desk.refusal("events", since=None, epoch=None)
        assert (refusal.status, refusal.text) == (429, "Too many connections of this username")
        await desk.house.harness.settle()
        assert len(desk.house.harness.rooms) == 0


async def test_the_head_of_a_stream_takes_no_slot() -> None:
    async with open_desk() as desk:
        answer = await desk.carry_out("events", head=True, since=None, epoch=None, rights=ALL)
        assert isinstance(answer, Response)
        assert (answer.status, answer.body, answer.content_type) == (200, b"", "text/event-stream")
        assert desk.connection_limits.statistics().connections == 0


async def test_all_answers_may_be_read_by_any_page() -> None:
    async with open_desk() as desk:
        answer = await desk.carry_out("message", b"x")
        assert isinstance(answer, Response)
        assert answer.headers is CORS_HEADERS
