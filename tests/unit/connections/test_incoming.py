"""What a reader does with each frame, one command at a time, and how it reads the end of a connection."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity
from chatroom.connections.ending import Ending
from chatroom.core.errors import Unavailable
from chatroom.core.http import Peer
from chatroom.core.limits import MAX_UNANSWERED, Limits
from chatroom.core.messages import Page
from chatroom.core.statistics import Drop
from chatroom.engines.memory import MemoryEngine
from chatroom.protocol import events
from chatroom.protocol.session import Weight
from chatroom.rooms.broker import INBOX
from tests.support.client_frames import TEXT, masked
from tests.support.engines import Answered, HeldEngine
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


async def test_a_decision_without_a_case_is_a_fault_and_not_silence() -> None:
    async with open_house() as house:
        alice = await house.call()
        with pytest.raises(AssertionError):
            await alice.connection._handler.carry_out(object())  # type: ignore[arg-type]


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


class CountingEngine(MemoryEngine):
    """Counts the messages that pages of history are made of."""

    def __init__(self) -> None:
        super().__init__(lambda: "e")
        self.read_for_pages: list[int] = []

    async def history(self, *asked: Any, **more: Any) -> Page:
        page = await super().history(*asked, **more)
        self.read_for_pages.append(len(page.messages))
        return page


@pytest.mark.parametrize("asked", [{}, {"after": 0}, {"before": 200}], ids=["newest", "forward", "backward"])
async def test_what_is_read_for_a_page_is_in_it(asked: dict[str, int]) -> None:
    """But for one message, at which it is seen that no more has room."""
    engine = CountingEngine()
    async with open_house(engine=engine) as house:
        alice = await house.call()
        await alice.send(*[say("x" * 4000) for _ in range(250)])
        page = await ask(alice, "history", limit=200, **asked)
        given = len(page["data"]["messages"])  # type: ignore[index]
        (read,) = engine.read_for_pages
        assert given >= events.HISTORY_BYTES // 4200
        assert read - given in (0, 1, 2)


class BlindEngine(MemoryEngine):
    """Has no history to tell just now."""

    async def history(self, room: str, epoch: str, **_range: object) -> Page:
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
        assert alice.authorization.room == "s"
    fields = [(record.getMessage(), record.fields) for record in caplog.records if record.name == "chatroom"]
    who = {"conn": "run-1", "username": "alice", "peer": "192.0.2.1"}
    assert fields[0] == ("JOIN", who | {"room": "r", "label": None})
    assert ("SWITCH", who | {"room": "s", "left": "r"}) in fields


class LockedEngine(MemoryEngine):
    """Opens no other room than `r`."""

    def open(self, room: str, opened: Answered) -> None:
        if room == "r":
            super().open(room, opened)
        else:
            opened(Unavailable("no disk"))


async def test_a_switch_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_house(engine=LockedEngine(lambda: "e")) as house:
        alice = await house.call()
        answer = await ask(alice, "switch_room", room="s")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
        await alice.send(say("still here"))
        assert alice.texts == ["still here"]
        assert alice.authorization.room == "r"
    assert "SWITCH" not in caplog.messages


# A fresh token

FREE = Rights.everything()


def knows(**identities: Identity) -> Callable[[Peer, str, str], Identity | None]:
    def renew(peer: Peer, username: str, token: str) -> Identity | None:
        assert peer == PEER
        found = identities.get(token)
        return found if found and found.username in (None, username) else None

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


# What is forbidden is logged


@pytest.fixture
def forbidden(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level("INFO")
    return lambda: [record.fields for record in caplog.records if record.getMessage() == "forbidden"]


async def test_a_command_without_a_right_to_it_is_logged(
    forbidden: Callable[[], list[dict[str, Any]]],
) -> None:
    async with open_house() as house:
        alice = await house.call(rights=Rights.parse({"r": "r"}), renew=knows(other=identity("bob")))
        await alice.send(
            say("one", "1"),
            command("typing", active=True),
            command("switch_room", room="s"),
            command("auth", token="other"),
            command("history"),
        )
        who = {"conn": "run-1", "username": "alice", "peer": "192.0.2.1", "count": 1}
        assert forbidden() == [
            {**who, "command": "message", "room": "r"},
            {**who, "command": "typing", "room": "r"},
            {**who, "command": "switch_room", "room": "s"},
            {**who, "command": "auth", "room": "r"},
        ]


async def test_of_many_forbidden_commands_the_number_is_logged(
    forbidden: Callable[[], list[dict[str, Any]]],
) -> None:
    async with open_house() as house:
        alice, bob = [await house.call(name, rights=Rights.parse({"r": "r"})) for name in ("alice", "bob")]
        for client in (alice, bob):
            await client.send(*[command("typing", active=True)] * 30, say("x"))
        assert len(forbidden()) == 10
        await trio.sleep(1.5)
        assert [fields for fields in forbidden() if "conn" not in fields] == [
            {"command": "typing", "count": 50},
            {"command": "message", "count": 2},
        ]
        await alice.send(say("x"))
        assert forbidden()[-1]["conn"] == "run-1"


# Pace and bounds


async def test_no_more_messages_than_a_few_are_under_way() -> None:
    async with open_house(engine=HeldEngine()) as house:
        alice = await house.call()
        await alice.send(*[say(str(number)) for number in range(200)])
        assert alice.member.outstanding == MAX_UNANSWERED


async def test_a_message_that_was_not_handed_in_is_not_under_way() -> None:
    """A reader that is cancelled where the broker is behind gives no outcome to wait for."""
    async with open_house(engine=HeldEngine()) as house:
        many = [await house.call(f"u{number}") for number in range(60)]
        for caller in many:
            await caller.send(*[say(str(number)) for number in range(60)])
        await idle(0.5)
        for caller in many:
            caller.end.ask(Ending(drop=Drop.STALLED, hard=True))
        await idle(1)
        assert all(caller.ending is not None for caller in many)
        handed = sum(caller.member.outstanding for caller in many)
        assert INBOX < handed < 60 * MAX_UNANSWERED


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


# What commands weigh

PACED = Limits()
RATE = int(PACED.command_rate)
SECONDS = 2
MOST = (SECONDS + 1) * RATE
"""How much may be weighed in so many seconds: a second's worth is there at the beginning."""
LONG = ["x" * 4000] * 50


async def answered(house: House, caller: Caller, event: str, asked: list[bytes], seconds: float) -> int:
    """How many of what is asked at once are answered in so many seconds."""
    for piece in asked:
        caller.transport.arrive(piece)
    await idle(seconds)
    return len(caller.named(event))


async def filled(house: House, texts: list[str], room: str = "r") -> None:
    """Have them said in the room by one whom no pace holds up."""
    bob = await house.call("bob", room=room)
    await bob.send(*[say(text) for text in texts])
    await idle()


async def test_pings_have_the_whole_rate() -> None:
    async with open_house(pace=(5, 20)) as house:
        alice = await house.call(limits=PACED)
        assert await answered(house, alice, "pong", [command("ping")] * 3 * MOST, SECONDS) in range(
            MOST, MOST + 5
        )


@pytest.mark.parametrize("fields", [{"before": 1}, {}, {"limit": 1}], ids=["empty", "long", "one"])
async def test_history_weighs_what_is_read(fields: dict[str, int]) -> None:
    async with open_house(pace=(5, 20)) as house:
        await filled(house, LONG)
        alice = await house.call(limits=PACED)
        count = await answered(house, alice, "history", [command("history", **fields)] * 3000, SECONDS)
        pages = [each["data"]["messages"] for each in alice.named("history")]
        size = sum(len(each["text"]) for page in pages for each in page)
        assert size < MOST * Weight.PAGE_BYTES
        assert sum(map(len, pages)) < MOST * Weight.PAGE_MESSAGES
        assert count > {"before": 0.95 * MOST, "limit": 0.8 * MOST}.get(next(iter(fields), ""), 0.15 * MOST)


@pytest.mark.parametrize("many", [0, 120])
async def test_a_switch_weighs_the_connections_that_are_told_of_it(many: int) -> None:
    async with open_house(pace=(5, 20)) as house:
        for number in range(many):
            await house.call(f"u{number}")
        alice = await house.call(limits=PACED)
        asked = [command("switch_room", room="rs"[number % 2]) for number in range(1, 3000)]
        count = await answered(house, alice, "switched", asked, SECONDS)
        weight = 1 + Weight.SWITCH + (many + 1) / Weight.TOLD
        assert 0.9 * MOST / weight < count < 1.1 * MOST / weight


async def test_a_switch_weighs_the_messages_that_follow_it() -> None:
    async with open_house(pace=(5, 20)) as house:
        await filled(house, ["x"] * 480)
        alice = await house.call(room="s", limits=PACED)
        back, away = (
            command("switch_room", room="r", since=0, epoch="epoch1"),
            command("switch_room", room="s"),
        )
        await answered(house, alice, "switched", [back, away] * 1000, SECONDS)
        assert len(alice.named("message")) <= MOST * Weight.REPLAYED + 480
        assert len(alice.named("message")) > 0.5 * MOST * Weight.REPLAYED


async def test_a_list_of_members_weighs_its_names() -> None:
    async with open_house(pace=(5, 20)) as house:
        room = (await house.call()).member.current.room
        for number in range(5 * Weight.NAMES):
            room.roster.enter(f"u{number}")
        bob = await house.call("bob", limits=PACED)
        count = await answered(house, bob, "members", [command("members")] * 3000, SECONDS)
        assert count in range(MOST // 6 - 5, MOST // 6 + 5)


async def test_a_token_weighs_much() -> None:
    async with open_house(pace=(5, 20)) as house:
        alice = await house.call(limits=PACED)
        count = await answered(house, alice, "error", [command("auth", token="x")] * MOST, SECONDS)
        assert count in range(MOST // 11 - 2, MOST // 11 + 2)


async def test_a_frame_weighs_its_length() -> None:
    async with open_house(pace=(5, 20)) as house:
        alice = await house.call(limits=PACED)
        large = command("ping", more=[[]] * 15_000)
        await answered(house, alice, "pong", [large] * 200, SECONDS)
        assert len(alice.named("pong")) * len(large) <= MOST * Weight.FRAME_CHARACTERS + len(large)


async def test_without_a_rate_nothing_weighs_anything() -> None:
    async with open_house() as house:
        await filled(house, LONG)
        alice = await house.call()
        assert await answered(house, alice, "history", [command("history")] * 100, 0.001) == 100


async def test_an_ordinary_client_waits_for_nothing() -> None:
    """It loads 10,000 messages, looks into thirty rooms and asks who is there, all in one breath."""
    async with open_house(pace=(5, 20), engine=MemoryEngine(lambda: "e")) as house:
        await filled(house, [f"a usual message of usual length, number {number}" for number in range(500)])
        before = trio.current_time()
        for asked, event in (
            ([command("history", limit=200)] * 50, "history"),
            ([command("switch_room", room=f"room-{number}") for number in range(30)], "switched"),
            ([command("switch_room", room="rs"[number % 2]) for number in range(30)], "switched"),
            ([command("members"), command("typing", active=True), command("ping")] * 40, "pong"),
        ):
            alice = await house.call(room="s", limits=PACED)
            alice.transport.arrive(b"".join(asked))
            while len(alice.named(event)) < len(asked) // (3 if event == "pong" else 1):
                await trio.testing.wait_all_tasks_blocked()
                assert trio.current_time() < before + 0.05
            alice.transport.arrive_end()


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


async def test_typing_of_who_is_muted_is_refused_even_without_a_cid() -> None:
    async with open_house() as house:
        alice = await house.call()
        carol = await house.call("carol", rights=Rights.parse({"*": "rwm"}))
        await carol.send(command("moderate", action="mute", username="alice"))
        await alice.send(command("typing", active=True), command("ping", "p"))
        refusal, pong = alice.events[-2:]
        assert (refusal["code"], refusal["data"]) == ("forbidden", {"message": "You are muted in this room"})
        assert pong["cid"] == "p"
        assert carol.named("typing") == []
