"""What a reader does with each frame, one command at a time, and how it reads the end of a connection."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing
from trio_websocket import CloseReason, ConnectionClosed

from chatroom.adapters.memory import MemoryEngine
from chatroom.pure.rights import Rights
from chatroom.pure.tokens import Identity
from chatroom.tasks.ending import CLIENT_LEFT, Ending
from chatroom.tasks.outlet import MAX_UNANSWERED
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect, Unavailable
from chatroom.values.http import Peer
from chatroom.values.messages import Page
from chatroom.values.statistics import Drop
from tests.support.client_frames import TEXT, masked
from tests.support.line import LIMITS, PEER, Caller, House, command, open_house, say

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def idle(seconds: float = 0.01) -> None:
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def ask(caller: Caller, event: str, **data: object) -> dict[str, object]:
    """Send a command with a cid; the one answer to it."""
    await caller.send(command(event, "q", **data))
    await idle()
    (answer,) = [each for each in caller.events if each.get("cid") == "q"]
    return answer


async def test_each_command_with_a_cid_gets_exactly_one_answer() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(
            command("ping", "1"),
            say("hi", "2"),
            command("typing", "3", active=True),
            command("typing", "4", active=True),
            command("members", "5"),
            command("history", "6"),
            command("switch_room", "7", room="r"),
            command("switch_room", "8", room="s"),
            command("auth", "9", token="x"),
            command("nonsense", "10"),
            say("hi", "11"),
            say("", "12"),
            command("ping", "13"),
        )
        await idle(1)
        answers = {each["cid"]: each["event"] for each in alice.events if "cid" in each}
        assert answers == {
            "1": "pong",
            "2": "message",
            "3": "ack",
            "4": "ack",
            "5": "members",
            "6": "history",
            "7": "ack",
            "8": "switched",
            "9": "error",
            "10": "error",
            "11": "message",
            "12": "error",
            "13": "pong",
        }
        assert len(answers) == sum("cid" in each for each in alice.events)


async def test_without_a_cid_silence_is_the_answer_to_what_is_done() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(command("typing", active=True), command("switch_room", room="r"), say(" "))
        await idle()
        assert len(alice.events) == 1


async def test_an_error_is_told_and_the_connection_stands() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(masked(TEXT, b"nonsense"), say("x" * 4001), say("after"))
        assert [each.get("code") for each in alice.named("error")] == ["bad_json", "too_long"]
        assert alice.texts == ["after"]


async def test_history_is_of_the_current_room_up_to_what_was_shown() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(*[say(str(number)) for number in range(1, 6)])
        await alice.send(command("history", "h", limit=2, before=5))
        (page,) = alice.named("history")
        assert [each["text"] for each in page["data"]["messages"]] == ["3", "4"]
        assert (page["data"]["more"], page["room"]) == (True, "r")


async def test_a_page_of_history_is_bounded_and_goes_on_where_it_was_cut() -> None:
    async with open_house() as house:
        alice = await house.call()
        await alice.send(*[say("\x01" * 3999 + str(number)) for number in range(9)])
        newest = await ask(alice, "history")
        texts = [each["text"][-1] for each in newest["data"]["messages"]]  # type: ignore[index]
        assert texts == ["4", "5", "6", "7", "8"]
        assert newest["data"]["more"]  # type: ignore[index]
    async with open_house() as house:
        alice = await house.call()
        await alice.send(*[say("\x01" * 3999 + str(number)) for number in range(9)])
        oldest = await ask(alice, "history", after=0)
        texts = [each["text"][-1] for each in oldest["data"]["messages"]]  # type: ignore[index]
        assert texts == ["0", "1", "2", "3", "4"]
        assert oldest["data"]["more"]  # type: ignore[index]


class BlindEngine(MemoryEngine):
    """Has no history to tell just now."""

    async def history(
        self, room: str, *, before: int | None, after: int | None, upto: int, limit: int
    ) -> Page:
        raise Unavailable("no disk")


async def test_a_history_that_can_not_be_read_may_be_asked_for_again() -> None:
    async with open_house(engine=BlindEngine(lambda: "e")) as house:
        answer = await ask(await house.call(), "history")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)


# Switching


async def test_after_a_switch_commands_are_of_the_new_room(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_house() as house:
        alice, bob, carol = await house.call(), await house.call("bob", room="s"), await house.call("carol")
        await alice.send(say("old"), command("switch_room", room="s"), say("new"), command("members", "m"))
        await idle()
        assert (bob.texts, carol.texts) == (["new"], ["old"])
        assert alice.named("members")[0]["data"]["members"] == ["alice", "bob"]
        assert alice.session.room == "s"
    fields = [(record.getMessage(), record.fields) for record in caplog.records if record.name == "chatroom"]
    who = {"conn": 1, "username": "alice", "peer": "192.0.2.1"}
    assert fields[0] == ("JOIN", who | {"room": "r"})
    assert ("SWITCH", who | {"room": "s", "left": "r"}) in fields


class LockedEngine(MemoryEngine):
    """Opens no other room than `r`."""

    async def open(self, room: str) -> object:  # type: ignore[override]
        if room != "r":
            raise Unavailable("no disk")
        return await super().open(room)


async def test_a_switch_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_house(engine=LockedEngine(lambda: "e")) as house:
        alice = await house.call()
        answer = await ask(alice, "switch_room", room="s")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
        await alice.send(say("still here"))
        assert alice.texts == ["still here"]
        assert alice.session.room == "r"
    assert "SWITCH" not in caplog.messages


# A fresh token

FREE = Rights.everything()


def knows(**identities: Identity) -> Callable[[Peer, str], Identity | None]:
    def renew(peer: Peer, token: str) -> Identity | None:
        assert peer == PEER
        return identities.get(token)

    return renew


def identity(username: str | None = "alice", rights: Rights = FREE) -> Identity:
    return Identity(username, rights, "static", "key")


@pytest.mark.parametrize("username", ["alice", None])
async def test_a_fresh_token_renews_the_connection_and_its_rights_count_from_then_on(
    username: str | None,
) -> None:
    rights = Rights.parse({"r": "r"})
    async with open_house() as house:
        alice = await house.call(renew=knows(good=identity(username, rights)))
        await alice.send(say("before"), command("auth", "a", token="good"), say("after", "c"))
        assert alice.named("ack") == [{"event": "ack", "data": {}, "cid": "a"}]
        assert alice.texts == ["before"]
        assert [(each["code"], each["cid"]) for each in alice.named("error")] == [("forbidden", "c")]


async def test_any_other_token_is_forbidden_and_changes_nothing() -> None:
    async with open_house() as house:
        alice = await house.call(renew=knows(other=identity("bob", Rights.parse({}))))
        await alice.send(command("auth", "1", token="bad"), command("auth", "2", token="other"), say("after"))
        assert [(each["code"], each["cid"]) for each in alice.named("error")] == [
            ("forbidden", "1"),
            ("forbidden", "2"),
        ]
        assert alice.texts == ["after"]


async def test_a_token_without_the_right_to_be_here_ends_the_connection() -> None:
    async with open_house() as house:
        alice = await house.call(renew=knows(good=identity("alice", Rights.parse({"s": "rw"}))))
        await alice.send(command("auth", "a", token="good"))
        assert alice.closed_with == (4503, "no longer allowed in this room")


# Pace and bounds


class SlowEngine(MemoryEngine):
    """Its commits wait for ever, once asked to."""

    def __init__(self) -> None:
        super().__init__(lambda: "e")
        self.drafts = 0

    async def append(self, drafts: object) -> list[object]:  # type: ignore[override]
        self.drafts += len(drafts)  # type: ignore[arg-type]
        await trio.sleep_forever()
        return []


async def test_no_more_messages_than_a_few_are_under_way() -> None:
    async with open_house(engine=SlowEngine()) as house:
        alice = await house.call()
        await alice.send(*[say(str(number)) for number in range(200)])
        assert alice.member.outstanding == MAX_UNANSWERED


async def test_a_message_that_was_not_handed_in_is_not_under_way() -> None:
    """A reader that is cancelled where the broker is behind gives no outcome to wait for."""
    async with open_house(engine=SlowEngine()) as house:
        many = [await house.call(f"u{number}") for number in range(40)]
        for caller in many:
            await caller.send(*[say(str(number)) for number in range(60)])
        await idle(0.5)
        for caller in many:
            caller.end.ask(Ending(drop=Drop.STALLED, hard=True))
        await idle(1)
        assert all(caller.ending is not None for caller in many)
        handed = sum(caller.member.outstanding for caller in many)
        assert 256 < handed < 40 * MAX_UNANSWERED


async def test_without_a_rate_nothing_is_paced() -> None:
    async with open_house() as house:
        alice = await house.call(limits=replace(LIMITS, command_rate=1))
        await alice.send(*[command("ping", str(number)) for number in range(500)])
        assert len(alice.named("pong")) == 500


async def test_what_is_dropped_counts_against_the_pace_too() -> None:
    limits = replace(LIMITS, message_rate=1, command_rate=10)
    async with open_house(pace=(1, 1)) as house:
        alice = await house.call(limits=limits)
        await alice.send(*[say(" ")] * 30, command("ping"))
        await idle(1.5)
        assert alice.named("pong") == []
        await idle(1)
        assert len(alice.named("pong")) == 1


async def test_a_reader_that_was_stopped_while_it_was_paced_takes_nothing_more() -> None:
    limits = replace(LIMITS, message_rate=1)
    async with open_house(pace=(1, 1)) as house:
        alice = await house.call(limits=limits)
        await alice.send(say("one"), say("two"))
        alice.connection.stop_reading()
        await idle(10)
        assert alice.texts == ["one"]


async def test_a_reader_that_was_stopped_takes_no_frame() -> None:
    async with open_house() as house:
        alice = await house.call()
        alice.connection.stop_reading()
        await alice.send(masked(TEXT, b"nonsense"), say("one"))
        await idle(10)
        assert len(alice.events) == 1


# The end, as the library tells it


class Socket:
    """As much of the library's connection as a reader uses: its word for the end."""

    def __init__(self, reason: CloseReason | None = None) -> None:
        self._reason = reason

    async def get_message(self) -> str | bytes:
        await trio.lowlevel.checkpoint()
        raise ConnectionClosed(self._reason)


async def quiet(house: House) -> Caller:
    """A caller whose connection does nothing, and whose reader, told that no more comes, is for the test."""
    caller = await house.call(limits=replace(LIMITS, ping_interval=1e6))
    caller.reader.close()
    return caller


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, CLIENT_LEFT),
        (1000, CLIENT_LEFT),
        (1006, CLIENT_LEFT),
        (4999, CLIENT_LEFT),
        (1002, Ending(Disconnect(CloseCode.PROTOCOL_ERROR, "protocol error"), Drop.PROTOCOL_ERROR)),
        (1007, Ending(Disconnect(CloseCode.INVALID_UTF8, "text is not UTF-8"), Drop.INVALID_UTF8)),
    ],
)
async def test_the_end_fits_what_the_library_calls_it(code: int | None, expected: Ending) -> None:
    async with open_house() as house:
        caller = await quiet(house)
        reason = None if code is None else CloseReason(code, "whatever")
        await caller.reader.read(Socket(reason))  # type: ignore[arg-type]
        found = caller.end.ending
        assert found is not None
        assert (found.drop, found.hard) == (expected.drop, expected.hard)
        if expected.disconnect is not None:
            assert found.disconnect is not None
            assert found.disconnect.reason == expected.disconnect.reason


async def test_a_close_of_the_client_is_its_leaving_whatever_its_code() -> None:
    async with open_house() as house:
        caller = await quiet(house)
        caller.wire.close_replied = True
        await caller.reader.read(Socket(CloseReason(1002, "")))  # type: ignore[arg-type]
        assert caller.end.ending == CLIENT_LEFT
