"""A person's conversation with the model server, at a screen that is made of lists. Time is virtual."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio

from chatroom.client.connection import Client
from chatroom.client.conversation import LEAVING, NEW, UNSETTLED, Conversation, Leaving
from chatroom.client.cursor import Begin
from chatroom.client.screen import Typist
from chatroom.client.seen import Seen
from tests.support.model_server import RECOVERED, REPLAYED
from tests.support.served_model import CUT, MemoryDialer, ServedConnection, ServedModel

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Lists:
    """A screen; see `Screen`. Where a person is there, it tells what is typed as the editor does."""

    def __init__(self, *, is_there: bool) -> None:
        self.is_there = is_there
        self.shown: list[str] = []
        self.status = self.line = ""
        self._typist: Typist | None = None
        self._typed, self._lines = trio.open_memory_channel[str | None](inf)

    def attend(self, typist: Typist) -> None:
        self._typist = typist

    def show(self, lines: Sequence[str]) -> None:
        self.shown += lines

    def set_prompt(self, text: str) -> None:
        pass

    def set_status(self, text: str) -> None:
        self.status = text

    def put_back(self, text: str) -> None:
        if self.is_there and not self.line:
            self.line = text
            self._tell_typing()

    def take_back(self, text: str) -> None:
        if self.line == text:
            self.press("")

    def ring(self) -> None:
        pass

    async def next_line(self) -> str | None:
        return await self._lines.receive()

    # What the person does

    def type(self, *lines: str) -> None:
        """Type whole lines, as fast as can be."""
        for line in lines:
            self._typed.send_nowait(line)

    def press(self, line: str) -> None:
        """The line has another text now, by a key."""
        self.line = line
        self._tell_typing()

    def leave(self) -> None:
        """Ask to leave, or end a pipe."""
        if self.is_there and self._typist is not None:
            self._typist.leave()
        self._typed.send_nowait(None)

    def _tell_typing(self) -> None:
        assert self._typist is not None
        self._typist.typing(self.line)


class Talk:
    """alice in the room `general`."""

    def __init__(self, nursery: trio.Nursery, *, is_there: bool) -> None:
        self.served = ServedModel()
        self.served.deaf_to = {"typing"}
        self.served.answers = {"rooms": _rooms, "members": _members, "delete": _change, "edit": _change}
        self.screen = Lists(is_there=is_there)
        self.dialer = MemoryDialer(nursery, self.served)
        self.client = Client(
            self.dialer, lambda: "good", room="general", username="alice", begin=Begin.RECENT
        )
        self.conversation = Conversation(self.screen, self.client, Seen(None, "model"), colour=False)
        self.leaving: Leaving | None = None
        self.began = trio.current_time()

    async def run(self) -> None:
        self.leaving = await self.conversation.run()

    async def until(self, found: Callable[[], object], seconds: float = 3600.0) -> None:
        """Wait until it is so."""
        with trio.fail_after(seconds):
            while not found():  # noqa: ASYNC110  (time is virtual)
                await trio.sleep(0.1)

    async def shows(self, text: str) -> None:
        """Wait until a line has this in it."""
        await self.until(lambda: any(text in line for line in self.screen.shown))

    async def ends(self, seconds: float = 3600.0) -> Leaving:
        """Wait for the end."""
        await self.until(lambda: self.leaving, seconds)
        assert self.leaving is not None
        return self.leaving

    def say(self, text: str, *, by: str = "bob", room: str = "general") -> int:
        """Somebody has said something."""
        number: int = self.served.model.store(room, "message", {"username": by, "text": text})["id"]
        return number

    def texts(self, room: str = "general") -> list[str]:
        """What is in a room."""
        return [
            record["data"]["text"]
            for record in self.served.model.log(room).records
            if record["event"] == "message"
        ]

    def changed(self, room: str = "general") -> list[int]:
        """The ids of the messages that were edited or deleted there, in that order."""
        return [
            record["data"]["id"]
            for record in self.served.model.log(room).records
            if record["event"] in {"edited", "deleted"}
        ]

    def asked(self, event: str) -> list[dict[str, Any]]:
        return [frame.get("data", {}) for frame in self.served.commands if frame["event"] == event]

    def hold(self) -> None:
        """From now on the server takes nothing."""
        self.served.takes = 1000.0

    async def cut(self) -> None:
        """The connection is lost, if it isn't yet, and there is none until `mend`."""
        self.dialer.peer = _absent
        await self.dialer.cut()
        await self.shows("* disconnected")

    async def mend(self) -> None:
        self.dialer.peer = self.served
        await self.shows("* connected again")


async def _absent(stream: trio.abc.Stream) -> None:
    """There is no server."""


def _rooms(connection: ServedConnection, frame: dict[str, Any]) -> None:
    connection.tell({"event": "rooms", "data": {"rooms": [], "more": False}, "cid": frame["cid"]})


def _members(connection: ServedConnection, frame: dict[str, Any]) -> None:
    members = ["alice", f"who-is-in-{connection.room}"]
    connection.tell({"event": "members", "data": {"members": members}, "cid": frame["cid"]})


def _change(connection: ServedConnection, frame: dict[str, Any]) -> None:
    done = {"edit": "edited", "delete": "deleted"}[frame["event"]]
    data = {**frame["data"], "username": "alice", "by": "alice"}
    connection.server.store(connection.room, done, data, frame["cid"])


def _store_and_vanish(connection: ServedConnection, frame: dict[str, Any]) -> None:
    """The client doesn't learn what has come of it."""
    connection.close(*CUT)
    data = {"username": connection.username, **frame["data"]}
    connection.server.store(connection.room, "message", data, frame["cid"])


@asynccontextmanager
async def talk(*, is_there: bool = True) -> AsyncIterator[Talk]:
    """A conversation that goes on behind the test no longer than it must."""
    async with trio.open_nursery() as nursery:
        found = Talk(nursery, is_there=is_there)
        nursery.start_soon(found.run)
        yield found
        nursery.cancel_scope.cancel()


# A change without an id


@pytest.mark.parametrize("change", ["/delete", "/edit better"])
async def test_a_change_means_the_message_that_was_typed_right_before(change: str) -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        found.screen.type("two", change)
        await found.until(found.changed)
        assert (found.texts(), found.changed()) == (["one", "two"], [2])


async def test_two_deletions_delete_two_messages() -> None:
    async with talk() as found:
        found.screen.type("one", "two", "/delete", "/delete", "/delete")
        await found.shows("you have said nothing here that is known")
        assert found.changed() == [2, 1]


async def test_a_change_behind_a_switch_means_a_message_of_that_room() -> None:
    async with talk() as found:
        for number in range(3):
            found.say(f"b{number}", by="alice", room="b")
        found.screen.type("one", "two")
        await found.shows("alice: two")
        found.screen.type("/switch b", "/delete")
        await found.until(lambda: found.changed("b"))
        assert (found.changed(), found.changed("b")) == ([], [3])


async def test_a_pipe_changes_what_it_has_said() -> None:
    async with talk(is_there=False) as found:
        found.screen.type("one", "/delete")
        found.screen.leave()
        assert await found.ends() is Leaving.QUIT
        assert found.changed() == [1]


async def test_a_pipe_that_has_nothing_to_change_is_told_by_its_exit_code() -> None:
    async with talk(is_there=False) as found:
        found.screen.type("/delete")
        found.screen.leave()
        assert await found.ends() is Leaving.UNSENT


@pytest.mark.parametrize("before", ["refused", "/switch b"])
async def test_a_change_behind_what_is_refused_changes_nothing(before: str) -> None:
    async with talk() as found:
        found.served.model.forbidden = {"b"}
        found.screen.type("one")
        await found.shows("alice: one")
        found.screen.type(before, "/delete")
        await found.shows("what was typed before it is refused")
        found.screen.type("/rooms")
        await found.shows("0 rooms")
        assert found.changed() == []


async def test_without_a_connection_a_change_needs_an_id() -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        await found.cut()
        found.screen.type("two", "/delete")
        await found.shows("there is no connection")
        assert found.screen.line == "/delete"
        found.screen.type("/delete #1")
        await found.mend()
        await found.until(found.changed)
        assert (found.texts(), found.changed()) == (["one", "two"], [1])


async def test_a_change_that_waits_for_a_server_that_is_silent_is_given_back() -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        found.hold()
        found.screen.type("two", "/delete")
        await found.until(lambda: "sending 2" in found.screen.status)
        await found.shows("there is no connection")
        assert found.screen.line == "/delete"


async def test_a_change_knows_of_a_message_that_was_stored_in_a_gap() -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        found.served.answers["message"] = _store_and_vanish
        found.screen.type("two")
        await found.until(lambda: len(found.texts()) == 2)
        del found.served.answers["message"]
        await found.cut()
        for number in range(RECOVERED + REPLAYED):
            found.say(f"missed {number}")
        await found.mend()
        found.screen.type("/delete")
        await found.until(found.changed)
        assert found.changed() == [2]


async def test_behind_a_gap_a_change_needs_an_id() -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        await found.cut()
        found.say("from elsewhere", by="alice")
        for number in range(RECOVERED + REPLAYED):
            found.say(f"missed {number}")
        await found.mend()
        found.screen.type("/delete")
        await found.shows("you have said nothing here that is known")
        assert found.changed() == []


async def test_a_change_is_not_done_in_another_history() -> None:
    async with talk() as found:
        found.screen.type("one")
        await found.shows("alice: one")
        await found.cut()
        found.screen.type("/delete #1", "two")
        await found.until(lambda: "2 to be sent" in found.screen.status)
        found.served.model.replace()
        found.say("other", by="alice")
        await found.mend()
        await found.shows("alice: two")
        assert (found.texts(), found.changed()) == (["other", "two"], [])
        assert "* not done: the history was replaced, and ids begin anew:" in found.screen.shown


# Questions


async def test_questions_behind_a_switch_are_about_that_room() -> None:
    async with talk() as found:
        found.served.answers["history"] = _older
        for number in range(3):
            found.say(f"a{number}")
        for number in range(9):
            found.say(f"b{number}", room="b")
        await found.shows("bob: a2")
        found.screen.type("/switch b", "/members", "/history 1", "/history 1")
        await found.until(lambda: len(found.asked("history")) == 2)
        await found.shows("who-is-in-b")
        assert [each["before"] for each in found.asked("history")] == [9 - REPLAYED + 1, 9 - REPLAYED]


async def test_the_history_begins_anew_behind_a_gap() -> None:
    async with talk() as found:
        found.served.answers["history"] = _older
        found.say("first")
        await found.shows("bob: first")
        await found.cut()
        for number in range(RECOVERED + REPLAYED):
            found.say(f"missed {number}")
        await found.mend()
        found.screen.type("/history 1")
        await found.until(lambda: found.asked("history"))
        assert found.asked("history") == [{"limit": 1, "before": RECOVERED + 2}]


def _older(connection: ServedConnection, frame: dict[str, Any]) -> None:
    records = connection.server.log(connection.room).records
    found = [
        {"id": record["id"], "ts": 1, **record["data"]}
        for record in records
        if record["id"] < frame["data"].get("before", inf)
    ][-frame["data"]["limit"] :]
    page = {"messages": found, "more": bool(found) and found[0]["id"] > 1}
    connection.tell({"event": "history", "data": page, "room": connection.room, "cid": frame["cid"]})


# Leaving


async def test_who_leaves_is_not_kept_by_what_was_pasted() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.served.takes = 1.0
        found.screen.type(*(f"line {number}" for number in range(3 * UNSETTLED)))
        await found.until(lambda: f"sending {UNSETTLED}" in found.screen.status)
        found.screen.leave()
        assert await found.ends(LEAVING + 3) is Leaving.UNSENT
        taken = sum("not known to be stored" in line for line in found.screen.shown) + len(found.texts())
        assert UNSETTLED <= taken < 2 * UNSETTLED
        assert found.screen.shown[-1] == f"* not done, since you leave: {3 * UNSETTLED - taken} lines"


async def test_who_leaves_again_leaves_at_once() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.hold()
        found.screen.type(*(f"line {number}" for number in range(UNSETTLED + 1)))
        await found.until(lambda: f"sending {UNSETTLED}" in found.screen.status)
        found.screen.leave()
        found.screen.leave()
        assert await found.ends(LEAVING / 2) is Leaving.UNSENT
        assert found.screen.shown[-1] == "* not done, since you leave: 1 line"


async def test_who_leaves_while_a_line_waits_its_turn_is_told() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.hold()
        found.screen.type("one", "/delete", "two")
        await found.until(lambda: "sending 2" in found.screen.status)
        found.screen.leave()
        assert await found.ends(LEAVING + 3) is Leaving.UNSENT
        assert found.screen.shown[-5:] == [
            "* not known to be stored:",
            "    one",
            "* not done:",
            "    /delete",
            "* not done, since you leave: 1 line",
        ]


async def test_what_was_typed_before_one_leaves_is_said() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.screen.type("one", "two")
        found.screen.leave()
        assert await found.ends() is Leaving.QUIT
        assert found.texts() == ["one", "two"]


async def test_the_end_of_a_pipe_drops_nothing() -> None:
    async with talk(is_there=False) as found:
        found.served.takes = 1.0
        found.screen.type(*(f"line {number}" for number in range(2 * UNSETTLED)))
        found.screen.leave()
        assert await found.ends() is Leaving.QUIT
        assert len(found.texts()) == 2 * UNSETTLED


async def test_an_error_tells_what_isnt_known_to_be_stored() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.hold()
        found.screen.type("one")
        await found.until(lambda: "sending 1" in found.screen.status)
        shown = found.screen.shown
    assert shown[-2:] == ["* not known to be stored:", "    one"]


# What is put back


async def test_what_is_refused_comes_back_in_its_room_alone() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.screen.type("refused secret", "/switch b")
        await found.shows("you are in b")
        assert found.screen.line == ""
        assert "* not done in general: forbidden:" in found.screen.shown
        found.screen.type("refused here")
        await found.until(lambda: found.screen.line == "refused here")


async def test_what_came_back_before_a_switch_had_its_turn_is_taken_away_again() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.screen.type("refused secret", "/delete", "/switch b")
        await found.shows("you are in b")
        assert found.screen.line == ""


async def test_what_was_for_a_room_that_is_refused_isnt_said_elsewhere() -> None:
    async with talk() as found:
        found.served.model.forbidden = {"b"}
        found.screen.type("/switch b", "secret")
        await found.shows("* not done in b: forbidden:")
        assert found.screen.line == ""
        assert found.texts() == []


async def test_what_comes_back_is_no_key() -> None:
    async with talk() as found:
        await found.shows("you are in")
        found.screen.type("refused")
        await found.until(lambda: found.screen.line == "refused")
        await trio.sleep(1)
        assert found.asked("typing") == []
        found.screen.press("refuse")
        await found.until(lambda: found.asked("typing") == [{"active": True}])


# What is new


async def test_what_is_said_in_a_history_that_replaces_another_is_new() -> None:
    async with talk() as found:
        found.say("before")
        await found.shows("bob: before")
        found.served.model.replace()
        found.say("after")
        await found.shows("bob: after")
        assert found.screen.shown.count(NEW) == 1
        assert found.screen.shown.index(NEW) == len(found.screen.shown) - 2
