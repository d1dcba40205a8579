"""Streams of events: what a reader gets, how it resumes, and how a stream ends."""

import re
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.connections.authorization import WITHDRAWN
from chatroom.connections.stream import COMMENT_SECONDS, MAX_IGNORED, NOT_BACK_MS, RETRY_MS
from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.limits import Limits
from chatroom.core.statistics import Drop
from tests.support.line import MIDNIGHT, command, say
from tests.support.memory_transport import MemoryTransport
from tests.support.requests import MODERATOR, Desk, Reader, open_desk, read_events

pytestmark = pytest.mark.usefixtures("autojump_clock")

RESTARTING = Disconnect(CloseCode.RESTART, "server is restarting")


async def post(desk: Desk, text: str, **options: Any) -> int:
    status, answer = await desk.ask("message", text.encode(), **options)
    assert status == 201
    return int(answer["id"])


def farewell(reader: Reader) -> tuple[str, int]:
    """The last words of a stream that has ended: why, and when to come back."""
    assert reader.text.endswith("\n\n")
    match = re.fullmatch(r": (.+)\nretry: (\d+)", reader.blocks[-1])
    assert match is not None
    return match[1], int(match[2])


# What is read


async def test_a_stream_begins_with_where_it_stands_and_goes_on() -> None:
    async with open_desk() as desk:
        for text in ("one", "two"):
            await post(desk, text)
        reader = await read_events(desk)
        (first_id, welcome), *replayed = reader.events
        assert (first_id, welcome) == (
            "epoch1:0",
            {
                "event": "welcome",
                "data": {"message": "Welcome to #r, reader!"},
                "room": "r",
                "username": "reader",
                "epoch": "epoch1",
                "last_id": 2,
                "replay": 2,
            },
        )
        assert [number for number, _ in replayed] == ["epoch1:1", "epoch1:2"]
        await post(desk, "three")
        assert reader.events[-1][0] == "epoch1:3"
        assert reader.events[-1][1]["data"] == {"username": "alice", "text": "three"}


async def test_a_stream_has_all_that_is_stored_and_nothing_else() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        bob = await desk.house.call("bob")
        await bob.send(say("hi"), command("typing", active=True), command("ping", cid="p"))
        await desk.ask("edit", b"ho", id=1, username="bob")
        await desk.ask("delete", id=1, username="bob")
        mute = {"action": "mute", "username": "mallory"}
        await desk.ask("moderate", mute, username="carol", rights=MODERATOR)
        bob.transport.arrive_end()
        await desk.house.harness.settle()
        events = [frame["event"] for _, frame in reader.events]
        assert events == ["welcome", "message", "edited", "deleted", "moderated"]
        assert reader.ids == [1, 2, 3, 4]
        assert len(reader.blocks) == 5


async def test_nobody_is_told_of_a_stream() -> None:
    async with open_desk() as desk:
        bob = await desk.house.call("bob")
        reader = await read_events(desk)
        assert desk.house.names_in("r") == ["bob"]
        reader.transport.arrive_end()
        await desk.house.harness.settle()
        assert [each["event"] for each in bob.events] == ["welcome"]
        other = await desk.house.call("carol")
        assert other.events[0]["data"]["members"] == ["bob"]


async def test_a_name_that_is_in_the_room_may_read_a_stream_as_well() -> None:
    async with open_desk() as desk:
        alice = await desk.house.call("alice")
        reader = await read_events(desk, "alice")
        await alice.send(say("one"), command("typing", active=True), say("two"))
        alice.transport.arrive_end()
        await desk.house.harness.settle()
        assert reader.ids == [1, 2]


# Resuming


async def test_a_reader_resumes_behind_what_it_has() -> None:
    async with open_desk() as desk:
        for number in range(5):
            await post(desk, f"m{number}")
        reader = await read_events(desk, since=3, epoch="epoch1")
        assert reader.events[0][0] == "epoch1:3"
        assert (reader.events[0][1]["recovered"], reader.ids) == (True, [4, 5])


@pytest.mark.parametrize(("since", "epoch"), [(9, "epoch1"), (3, "other")])
async def test_what_cannot_be_recovered_is_said(since: int, epoch: str) -> None:
    async with open_desk(history=2) as desk:
        for number in range(5):
            await post(desk, f"m{number}")
        reader = await read_events(desk, since=since, epoch=epoch)
        assert (reader.events[0][0], reader.events[0][1]["recovered"]) == ("epoch1:3", False)
        assert reader.ids == [4, 5]


async def test_a_torn_stream_resumes_right_wherever_it_was_torn() -> None:
    async with open_desk() as desk:
        for number in range(4):
            await post(desk, f"m{number}")
        whole = (await read_events(desk)).text
        for cut in range(len(whole)):
            blocks = whole[:cut].split("\n\n")[:-1]  # an event that isn't whole is dropped
            last = [block.split("\n")[0].removeprefix("id: ") for block in blocks]
            seen = [int(each.partition(":")[2]) for each in last[1:]]
            if not last:
                continue
            epoch, _, since = last[-1].partition(":")
            again = await read_events(desk, since=int(since), epoch=epoch)
            assert seen + again.ids == [1, 2, 3, 4], cut
            again.transport.arrive_end()


# Slow readers


async def test_a_slow_reader_lags_and_misses_nothing() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        reader.transport.room = 30
        bob = await desk.house.call("bob")
        for number in range(50):
            await bob.send(say(f"m{number}" * 20))
        assert len(reader.ids) < 2
        assert len(reader.stream._outbound._queue) <= 1
        while len(reader.ids) < 50:
            reader.transport.give_room(977)
            await trio.testing.wait_all_tasks_blocked()
        assert reader.ids == list(range(1, 51))


async def test_a_reader_that_takes_nothing_is_dropped() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        reader.transport.room = 0
        await post(desk, "x")
        await trio.sleep(reader.transport.patience + 1)
        assert reader.ending is not None
        assert (reader.ending.drop, reader.transport.aborted) == (Drop.STALLED, True)


async def test_what_streams_share_is_turned_into_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatroom.protocol import eventtext  # noqa: PLC0415

    made = []
    event_text = eventtext.event_text

    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return event_text(*arguments)

    monkeypatch.setattr(eventtext, "event_text", counting)
    async with open_desk() as desk:
        for number in range(9):
            await post(desk, f"m{number}")
        readers = [await read_events(desk, f"r{number}") for number in range(5)]
        assert len(made) == 1
        await post(desk, "live")
        assert len(made) == 2
        assert all(reader.ids == list(range(1, 11)) for reader in readers)


# Comments


async def test_a_comment_keeps_the_connection_in_use() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        await trio.sleep(COMMENT_SECONDS * 2.5)
        assert reader.blocks[1:] == [":", ":"]
        reader.transport.arrive_end()
        await trio.testing.wait_all_tasks_blocked()
        assert len(desk.house.keepalive) == 0


# The end


async def test_a_reader_that_leaves_is_noticed() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        reader.transport.arrive_end()
        await desk.house.harness.settle()
        assert reader.ending is not None
        assert (reader.ending.drop, reader.ending.disconnect) == (None, None)
        assert len(desk.house.harness.rooms) == 0


async def test_a_connection_that_breaks_is_noticed() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        reader.transport.fail()
        await desk.house.harness.settle()
        assert reader.ending is not None
        assert reader.ending.drop == Drop.BROKEN


async def test_what_a_reader_sends_is_ignored_and_bounded() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        for _ in range(20):
            reader.transport.arrive(b"GET / HTTP/1.1\r\n" * 500)
            await trio.testing.wait_all_tasks_blocked()
        assert reader.stream._ignored <= MAX_IGNORED + 4096
        await post(desk, "x")
        assert reader.ids == [1]


async def test_a_stop_gives_what_was_said_and_then_ends_the_stream() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        reader.transport.room = 10
        await post(desk, "last words")
        reader.stream.end.disconnect(RESTARTING)
        reader.transport.give_room(1 << 20)
        await trio.sleep(3)
        assert reader.ids == [1]
        said, retry = farewell(reader)
        assert (said, RETRY_MS[0] <= retry <= RETRY_MS[1]) == ("server is restarting", True)
        assert reader.ending is not None
        assert (reader.ending.drop, reader.transport.closed) == (Drop.RESTART, True)


async def test_a_stream_that_comes_at_a_stop_gets_the_farewell() -> None:
    async with open_desk() as desk:
        reader = Reader(desk.house, "reader", MemoryTransport(), desk.limits)
        reader.transport.arrive_end()
        with trio.fail_after(5):
            await reader.run(RESTARTING)
        assert farewell(reader)[0] == "server is restarting"


async def test_the_end_of_a_token_ends_the_stream() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk, expires=MIDNIGHT + 30)
        await trio.sleep(100)
        said, retry = farewell(reader)
        assert (said, retry <= RETRY_MS[1]) == ("the token has expired", True)
        assert "expiring" not in reader.text


async def test_a_lost_right_ends_the_stream() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        assert not reader.stream.authorization.review(AsBefore())
        reader.stream.end.disconnect(WITHDRAWN)
        await trio.sleep(3)
        assert farewell(reader)[0] == "the token is no longer valid"


class AsBefore:
    """A verifier with which nothing has changed."""

    def review(self, identity: Any) -> Any:
        return identity

    def allows(self, _identity: Any, _username: str) -> bool:
        return True


@pytest.mark.parametrize(("action", "said"), [("kick", "kicked"), ("ban", "banned")])
async def test_a_moderator_ends_the_stream(action: str, said: str) -> None:
    async with open_desk() as desk:
        reader, other = await read_events(desk), await read_events(desk, "other")
        moderator = await read_events(desk, rights=MODERATOR)
        entry = {"action": action, "username": "reader"}
        assert (await desk.ask("moderate", entry, username="carol", rights=MODERATOR))[0] == 200
        await trio.sleep(3)
        assert reader.ids == [1]
        assert farewell(reader) == (said, NOT_BACK_MS)
        assert other.ending is None
        assert moderator.ending is None


async def test_a_reader_that_may_not_read_any_more_is_sent_away() -> None:
    async with open_desk() as desk:
        reader = await read_events(desk)
        identity = reader.stream.authorization.identity
        lesser = type(identity)(None, Rights((("other", "r"),)), "static", identity.key, None)
        reader.stream.authorization.renew(lesser)
        await trio.sleep(3)
        assert farewell(reader)[0] == "no longer allowed in this room"


async def test_a_store_that_cannot_be_read_ends_the_stream() -> None:
    async with open_desk(limits=Limits(message_rate=0)) as desk:
        reader = await read_events(desk)
        room = desk.house.harness.rooms.get("r")
        assert room is not None
        desk.house.harness.rooms.renew(room, RESTARTING)
        await trio.sleep(3)
        assert reader.ending is not None
        assert reader.ending.drop == Drop.RESTART
