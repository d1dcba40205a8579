"""What `say` does, against the model server: each text once, whatever is lost, slow, refused or killed.

Time is virtual, files are real.
"""

import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatroom.client import saying
from chatroom.client.batches import Batch, Entry, lines_of
from chatroom.client.connection import Client
from chatroom.client.cursor import Begin, Position
from chatroom.client.dialer import Unreachable
from chatroom.client.outboxfile import OutboxFailed, OutboxFile, open_outbox
from chatroom.client.saying import UNSETTLED, Outcome, Result, Sayer
from chatroom.core.errors import StartError
from tests.conftest import run_on_virtual_clock
from tests.support.model_server import PAGE, RECOVERED
from tests.support.served_model import MemoryDialer, Peer, ServedModel
from tests.unit.client.test_connection import answering, response

pytestmark = pytest.mark.usefixtures("autojump_clock")
NOW = 1_764_000_000
FULL_OF_IT = "x" * 3000
"""More than the model takes."""


class Killed(BaseException):
    """The command is killed."""


class KilledOutbox(OutboxFile):
    """An outbox whose command is killed when it has been written to `times` times, `part` of the way
    through the last one.
    """

    times = 0
    part = 0.0

    def append(self, lines: Iterable[str], *, sync: bool) -> None:
        self.times -= 1
        if self.times < 0:
            text = "".join(lines)
            super().append([text[: int(self.part * len(text))]], sync=False)
            raise Killed
        super().append(lines, sync=sync)


class Command:
    """One `say`."""

    def __init__(
        self,
        folder: Path,
        peer: Peer,
        *,
        wait: str | None = None,
        seconds: float = 30.0,
        outbox: OutboxFile | None = None,
    ) -> None:
        self.outbox = outbox or open_outbox(str(folder), "ws://model", "general", "alice", seconds=0)
        self.peer = peer
        self.dialer: MemoryDialer | None = None
        answer = None if wait is None else re.compile(wait)
        self.sayer = Sayer(self.outbox, self._connect, seconds=seconds, answer=answer, now=_now)
        self.outcome: Outcome | None = None
        self.kept: list[Batch] = []

    def _connect(self, position: Position | None) -> Client:
        assert self.dialer is not None
        return Client(
            self.dialer,
            lambda: "t",
            room="general",
            username="alice",
            begin=Begin.NOW,
            fill=True,
            position=position,
        )

    async def run(self, *texts: str, feed: Callable[[Sayer], Awaitable[None]] | None = None) -> Outcome:
        """Say the texts, and tell it."""

        async def give(sayer: Sayer) -> None:
            await sayer.give(texts)
            sayer.end()

        try:
            async with trio.open_nursery() as nursery:
                self.dialer = MemoryDialer(nursery, self.peer)
                self.outcome = await self.sayer.run(feed or give)
                nursery.cancel_scope.cancel()
            self.kept = self.sayer.kept(self.outcome)
            if self.outcome.result is not Result.FULL:
                self.outbox.replace(self.kept)
        finally:
            self.outbox.close()
        return self.outcome


def _now() -> int:
    return NOW + int(trio.current_time())


async def say(folder: Path, peer: Peer, *texts: str, **more: Any) -> Outcome:
    return await Command(folder, peer, **more).run(*texts)


def stored(served: ServedModel) -> list[str]:
    return [record["data"]["text"] for record in served.model.log("general").records]


def waiting(folder: Path) -> str:
    """What the outbox holds."""
    return "".join(path.read_text() for path in folder.glob("*.jsonl"))


async def nowhere(stream: trio.abc.Stream) -> None:
    """Nobody is there."""


# What comes of it


async def test_texts_are_stored_in_order_and_nothing_is_kept(tmp_path: Path) -> None:
    served = ServedModel()
    outcome = await say(tmp_path, served, "one", "two", "three")
    assert outcome.result is Result.STORED
    assert [(entry.text, entry.id, entry.epoch) for entry in outcome.entries] == [
        ("one", 1, "e0"),
        ("two", 2, "e0"),
        ("three", 3, "e0"),
    ]
    assert (stored(served), waiting(tmp_path)) == (["one", "two", "three"], "")


async def test_without_a_text_there_is_nothing_to_say(tmp_path: Path) -> None:
    outcome = await say(tmp_path, ServedModel())
    assert (outcome.result, outcome.entries, outcome.reason) == (Result.REFUSED, (), "")
    assert waiting(tmp_path) == ""


async def test_what_is_refused_leaves_the_others(tmp_path: Path) -> None:
    served = ServedModel()
    outcome = await say(tmp_path, served, "one", "refused", FULL_OF_IT, "two")
    assert outcome.result is Result.REFUSED
    assert [entry.error for entry in outcome.entries] == [
        None,
        "forbidden",
        "it is larger than this server takes",
        None,
    ]
    assert (stored(served), waiting(tmp_path)) == (["one", "two"], "")


async def test_the_same_twice_is_two_messages(tmp_path: Path) -> None:
    served = ServedModel()
    for _ in range(2):
        assert (await say(tmp_path, served, "hi")).result is Result.STORED
    assert stored(served) == ["hi", "hi"]


async def test_a_server_that_lets_nobody_in_gets_nothing_later(tmp_path: Path) -> None:
    refusal = answering(response("401 Unauthorized", body=b"Unauthorized"))
    outcome = await say(tmp_path, refusal, "hi")
    assert (outcome.result, outcome.reason) == (Result.REFUSED, "Unauthorized (401)")
    assert waiting(tmp_path) == ""
    served = ServedModel()
    await say(tmp_path, served, "other")
    assert stored(served) == ["other"]


async def test_what_may_have_been_sent_is_unknown_if_nobody_is_let_in_now(tmp_path: Path) -> None:
    served = ServedModel()
    served.deaf_to = {"message"}
    assert (await say(tmp_path, served, "hi")).result is Result.UNKNOWN
    refusal = answering(response("401 Unauthorized", body=b"Unauthorized"))
    outcome = await say(tmp_path, refusal, "hi")
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "Unauthorized (401)")
    served.deaf_to = set()
    assert (await say(tmp_path, served, "hi")).result is Result.STORED
    assert stored(served) == ["hi"]


async def test_what_was_never_sent_is_refused_with_the_command_also_at_a_later_try(tmp_path: Path) -> None:
    assert (await say(tmp_path, nowhere, "hi")).result is Result.UNKNOWN
    refusal = answering(response("401 Unauthorized"))
    assert (await say(tmp_path, refusal, "hi")).result is Result.REFUSED
    served = ServedModel()
    await say(tmp_path, served, "other")
    assert stored(served) == ["other"]


@pytest.mark.parametrize("all_given", [False, True])
async def test_who_is_sent_away_in_the_middle_can_try_the_rest_again(tmp_path: Path, all_given: bool) -> None:
    served = ServedModel()
    served.takes = 1.0

    async def sent_away() -> None:
        while len(stored(served)) < 3:  # noqa: ASYNC110  (time is virtual)
            await trio.sleep(0.1)
        served.connection.close(4510, "go away")

    async def give(sayer: Sayer) -> None:
        await sayer.give("abcdef" if all_given else "abc")
        if all_given:
            sayer.end()
        else:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sent_away)
        outcome = await Command(tmp_path, served).run(feed=give)
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "sent away: go away")
    assert (await say(tmp_path, served, *"abcdef")).result is Result.STORED
    assert stored(served) == list("abcdef")


async def test_an_ack_that_does_not_say_as_what_is_enough(tmp_path: Path) -> None:
    served = ServedModel()
    served.deaf_to = {"message"}
    command = Command(tmp_path, served)
    async with trio.open_nursery() as nursery:

        async def acknowledge() -> None:
            while not served.commands:  # noqa: ASYNC110  (time is virtual)
                await trio.sleep(0.1)
            served.connection.tell({"event": "ack", "data": {}, "cid": served.commands[0]["cid"]})

        nursery.start_soon(acknowledge)
        outcome = await command.run("hi")
    assert (outcome.result, outcome.entries[0].id, waiting(tmp_path)) == (Result.STORED, 0, "")


# Time


@pytest.mark.parametrize("seconds", [0.5, 30.0])
async def test_without_an_answer_it_is_unknown(tmp_path: Path, seconds: float) -> None:
    began = trio.current_time()
    outcome = await say(tmp_path, nowhere, "hi", seconds=seconds)
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "it doesn't answer the handshake")
    assert seconds <= trio.current_time() - began < seconds + 1.5
    assert '"text":"hi"' in waiting(tmp_path)


async def test_the_time_begins_anew_with_each_answer(tmp_path: Path) -> None:
    served = ServedModel()
    served.takes = 15.0
    began = trio.current_time()
    assert (await say(tmp_path, served, *"abcdefgh", seconds=20.0)).result is Result.STORED
    assert trio.current_time() - began >= 8 * 15


async def test_the_time_does_not_run_while_nothing_is_said(tmp_path: Path) -> None:
    served = ServedModel()

    async def slowly(sayer: Sayer) -> None:
        for text in "abc":
            await trio.sleep(500)
            await sayer.give([text])
        await trio.sleep(500)
        sayer.end()

    assert (await Command(tmp_path, served).run(feed=slowly)).result is Result.STORED
    assert stored(served) == ["a", "b", "c"]


async def test_an_interrupt_tells_that_it_is_unknown(tmp_path: Path) -> None:
    command = Command(tmp_path, nowhere)
    async with trio.open_nursery() as nursery:

        async def interrupt() -> None:
            await trio.sleep(5)
            command.sayer.interrupt()

        nursery.start_soon(interrupt)
        outcome = await command.run("hi")
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "it was interrupted")
    assert '"text":"hi"' in waiting(tmp_path)


# Tried again


@pytest.mark.parametrize("had", [False, True])
async def test_the_same_command_again_stores_nothing_twice(tmp_path: Path, had: bool) -> None:
    """Whether the server had it or not."""
    served = ServedModel()
    served.deaf_to = {"message"}
    assert (await say(tmp_path, served, "hi", seconds=0.5)).result is Result.UNKNOWN
    served.deaf_to = set()
    if had:
        own = {"username": "alice", "text": "hi"}
        served.model.store("general", "message", own, served.commands[0]["cid"])
    outcome = await say(tmp_path, served, "hi")
    assert (outcome.result, outcome.entries[0].id) == (Result.STORED, 1)
    assert (stored(served), waiting(tmp_path)) == (["hi"], "")


async def test_what_earlier_commands_have_left_is_sent_first(tmp_path: Path) -> None:
    served = ServedModel()
    for text in ("one", "two"):
        assert (await say(tmp_path, nowhere, text, seconds=0.5)).result is Result.UNKNOWN
    outcome = await say(tmp_path, served, "three")
    assert [entry.text for entry in outcome.entries] == ["three"]
    assert stored(served) == ["one", "two", "three"]


async def test_what_another_command_has_sent_meanwhile_is_known(tmp_path: Path) -> None:
    """And told once: after that the same text is another message."""
    served = ServedModel()
    await say(tmp_path, nowhere, "one", seconds=0.5)
    await say(tmp_path, served, "two")
    assert '"text":"one"' in waiting(tmp_path)
    outcome = await say(tmp_path, nowhere, "one", seconds=0.5)
    assert (outcome.result, outcome.entries[0].id) == (Result.STORED, 1)
    assert (stored(served), waiting(tmp_path)) == (["one", "two"], "")
    await say(tmp_path, served, "one")
    assert stored(served) == ["one", "two", "one"]


async def test_a_command_that_says_more_than_the_last_time_goes_on_with_it(tmp_path: Path) -> None:
    served = ServedModel()
    await say(tmp_path, nowhere, "a", "b", seconds=0.5)
    outcome = await say(tmp_path, served, "a", "b", "c")
    assert [entry.id for entry in outcome.entries] == [1, 2, 3]
    assert (stored(served), waiting(tmp_path)) == (["a", "b", "c"], "")


async def test_a_command_that_says_less_is_another_one(tmp_path: Path) -> None:
    served = ServedModel()
    await say(tmp_path, nowhere, "a", "b", seconds=0.5)
    await say(tmp_path, served, "a")
    assert stored(served) == ["a", "b", "a"]


async def test_texts_that_come_one_by_one_are_recognized_and_not_held_back_for_longer_than_needed(
    tmp_path: Path,
) -> None:
    served = ServedModel()
    await say(tmp_path, nowhere, "a", "b", seconds=0.5)
    seen = []

    async def slowly(sayer: Sayer) -> None:
        for text in "abc":
            await sayer.give([text])
            await trio.sleep(5)
            seen.append(stored(served))
        sayer.end()

    assert (await Command(tmp_path, served).run(feed=slowly)).result is Result.STORED
    assert seen == [["a", "b"], ["a", "b"], ["a", "b", "c"]]


async def test_texts_that_turn_out_to_be_another_command_are_said_then(tmp_path: Path) -> None:
    served = ServedModel()
    await say(tmp_path, nowhere, "a", "b", seconds=0.5)

    async def slowly(sayer: Sayer) -> None:
        for text in "ac":
            await sayer.give([text])
            await trio.sleep(5)
        sayer.end()

    assert (await Command(tmp_path, served).run(feed=slowly)).result is Result.STORED
    assert stored(served) == ["a", "b", "a", "c"]


async def told(folder: Path, served: ServedModel, outbox: OutboxFile, texts: list[str]) -> bool:
    """Whether a command that may be killed has told that all is stored."""
    outcome = None
    try:
        outcome = await say(folder, served, *texts, outbox=outbox, seconds=0.5)
    except* Killed:
        pass
    return outcome is not None and outcome.result is Result.STORED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 8), st.floats(0, 1)), max_size=3),
    st.sampled_from((None, "before", "after")),
)
def test_killed_at_any_step_and_tried_again_it_stores_each_text_once(
    texts: list[str], kills: list[tuple[int, float]], fails: str | None
) -> None:
    async def all_of_it() -> None:
        served = ServedModel()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for times, part in kills:
                outbox = open_outbox(name, "ws://model", "general", "alice", seconds=0)
                outbox.__class__ = KilledOutbox
                assert isinstance(outbox, KilledOutbox)
                outbox.times, outbox.part = times, part
                served.model.unavailable = fails
                if await told(folder, served, outbox, texts):  # then the next one is a new command
                    assert stored(served) == texts
                    served.model.log("general").records.clear()
                served.model.unavailable = None
            outcome = await say(folder, served, *texts)
            assert outcome.result is Result.STORED
            assert [entry.text for entry in outcome.entries] == texts
            assert stored(served) == texts
            assert waiting(folder) == ""

    run_on_virtual_clock(all_of_it)


# Much of it


async def test_only_so_much_is_under_way(tmp_path: Path) -> None:
    served = ServedModel()
    served.deaf_to = {"message"}
    taken = []

    async def many(sayer: Sayer) -> None:
        for start in range(0, 100_000, 5000):
            await sayer.give([str(number) for number in range(start, start + 5000)])
            taken.append(start)
        sayer.end()

    assert (await Command(tmp_path, served).run(feed=many)).result is Result.UNKNOWN
    assert taken == []
    assert waiting(tmp_path).count('"text"') == UNSETTLED


async def test_what_was_given_at_once_is_not_too_much_for_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saying, "UNSETTLED", 10)
    monkeypatch.setattr(saying, "MOST_WAITING", 20)
    many = [str(number) for number in range(100)]
    assert (await say(tmp_path, nowhere, *many, seconds=0.5)).result is Result.UNKNOWN
    assert waiting(tmp_path).count('"text"') == 10
    served = ServedModel()
    outcome = await say(tmp_path, served, *many)
    assert (outcome.result, len(outcome.entries)) == (Result.STORED, 100)
    assert stored(served) == many


async def test_while_too_much_waits_nothing_is_added_until_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saying, "MOST_WAITING", 3)
    for text in "abcd":
        assert (await say(tmp_path, nowhere, text, seconds=0.5)).result is Result.UNKNOWN
    assert (await say(tmp_path, nowhere, "e", seconds=0.5)).result is Result.FULL
    assert '"text":"e"' not in waiting(tmp_path)
    served = ServedModel()
    assert (await say(tmp_path, served, "e")).result is Result.STORED
    assert stored(served) == ["a", "b", "c", "d", "e"]


async def test_of_an_endless_stream_the_first_texts_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saying, "MOST_REMEMBERED", 10)
    served = ServedModel()
    sizes = []

    async def stream(sayer: Sayer) -> None:
        for number in range(50):
            await sayer.give([str(number)])
            await trio.sleep(1)
            sizes.append(waiting(tmp_path).count('"text"'))
        sayer.end()

    outcome = await Command(tmp_path, served).run(feed=stream)
    assert (outcome.result, outcome.forgotten + len(outcome.entries)) == (Result.STORED, 50)
    assert stored(served) == [str(number) for number in range(50)]
    assert max(sizes) <= 11
    assert waiting(tmp_path) == ""


@pytest.mark.parametrize("many", [9, 10, 11, 20])
async def test_what_is_forgotten_still_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(saying, "MOST_REMEMBERED", 10)
    for refused in ((), (2, 4), (many - 1,)):
        served = ServedModel()
        texts = [f"{number} refused" if number in refused else str(number) for number in range(many)]

        async def stream(sayer: Sayer) -> None:
            for text in texts:  # noqa: B023
                await sayer.give([text])
                await trio.sleep(1)
            sayer.end()

        outcome = await Command(tmp_path, served).run(feed=stream)
        assert outcome.result is (Result.REFUSED if refused else Result.STORED)
        assert outcome.forgotten + len(outcome.entries) == many
        assert outcome.stored == many - len(refused)
        assert outcome.faults[:1] == [(number + 1, "forbidden") for number in refused[:1]]
        assert len(outcome.faults) + max(0, outcome.refused - 1) == len(refused)


async def test_what_is_not_settled_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saying, "MOST_REMEMBERED", 4)
    served = ServedModel()

    async def stream(sayer: Sayer) -> None:
        await sayer.give(["0", "1"])
        await trio.sleep(1)
        served.deaf_to = {"message"}
        for number in range(2, 8):
            await sayer.give([str(number)])
        sayer.end()

    outcome = await Command(tmp_path, served).run(feed=stream)
    assert (outcome.result, outcome.forgotten) == (Result.UNKNOWN, 2)
    served.deaf_to = set()
    await say(tmp_path, served, "more")
    assert stored(served) == [*map(str, range(8)), "more"]


# Answers


async def answered(tmp_path: Path, *said: tuple[str, str], before: tuple[str, str] | None = None) -> Outcome:
    """Wait for an answer; others say this behind it."""
    served = ServedModel()
    if before is not None:
        served.model.store("general", "message", {"username": before[0], "text": before[1]})
    async with trio.open_nursery() as nursery:

        async def others() -> None:
            while "deploy" not in stored(served):  # noqa: ASYNC110  (time is virtual)
                await trio.sleep(0.1)
            for username, text in said:
                served.model.store("general", "message", {"username": username, "text": text})

        nursery.start_soon(others)
        outcome = await say(tmp_path, served, "deploy", wait="^done")
    assert waiting(tmp_path) == "" or outcome.result is Result.UNKNOWN
    return outcome


@pytest.mark.parametrize("name", ["bob", "alice"])
async def test_an_answer_is_waited_for_whoever_gives_it(tmp_path: Path, name: str) -> None:
    outcome = await answered(tmp_path, ("bob", "not done"), (name, "done: 3 hosts"), ("bob", "done too"))
    assert (outcome.result, outcome.answer) == (Result.STORED, "done: 3 hosts")


@pytest.mark.parametrize(("said", "before"), [([], ("bob", "done")), ([("bob", "undone")], None)])
async def test_what_is_no_answer(
    tmp_path: Path, said: list[tuple[str, str]], before: tuple[str, str] | None
) -> None:
    outcome = await answered(tmp_path, *said, before=before)
    assert (outcome.result, outcome.answer) == (Result.UNKNOWN, None)
    assert outcome.entries[0].settled


async def test_a_command_that_is_tried_again_finds_the_answer_that_came_meanwhile(tmp_path: Path) -> None:
    served = ServedModel()
    assert (await say(tmp_path, served, "deploy", wait="^done")).result is Result.UNKNOWN
    for number in range(20):
        served.model.store("general", "message", {"username": "bob", "text": f"{number}"})
    served.model.store("general", "message", {"username": "bob", "text": "done"})
    outcome = await say(tmp_path, served, "deploy", wait="^done")
    assert (outcome.result, outcome.answer) == (Result.STORED, "done")
    assert stored(served).count("deploy") == 1


async def test_an_answer_is_waited_for_as_long_as_somebody_tries(tmp_path: Path) -> None:
    served = ServedModel()
    for _ in range(4):
        assert (await say(tmp_path, served, "deploy", wait="^done", seconds=5000)).result is Result.UNKNOWN
        await trio.sleep(3000)
    assert stored(served) == ["deploy"]


async def test_what_a_command_has_stored_is_known_while_it_waits_for_more(tmp_path: Path) -> None:
    served = ServedModel()
    command = Command(tmp_path, served)

    async def give(sayer: Sayer) -> None:
        await sayer.give(["a", "b"])
        await trio.sleep(10_000)
        raise Killed

    with pytest.RaisesGroup(Killed, flatten_subgroups=True):
        await command.run(feed=give)
    await say(tmp_path, served, "a", "b", "c")
    assert stored(served) == ["a", "b", "c"]


async def test_in_another_history_an_answer_is_what_is_said_from_then_on(tmp_path: Path) -> None:
    served = ServedModel()
    for number in range(5):
        served.model.store("general", "message", {"username": "bob", "text": f"{number}"})

    async def others() -> None:
        while "deploy" not in stored(served):  # noqa: ASYNC110  (time is virtual)
            await trio.sleep(0.1)
        served.model.replace()
        served.model.store("general", "message", {"username": "bob", "text": "done before"})
        connections = len(served.targets)
        while len(served.targets) == connections:  # noqa: ASYNC110
            await trio.sleep(0.1)
        await trio.sleep(1)
        served.model.store("general", "message", {"username": "bob", "text": "done after"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        outcome = await say(tmp_path, served, "deploy", wait="^done")
    assert outcome.answer == "done after"


async def test_another_history_has_no_answer_from_before_it_was_seen(tmp_path: Path) -> None:
    served = ServedModel()
    assert (await say(tmp_path, served, "deploy", wait="^done")).result is Result.UNKNOWN
    served.model.replace()
    for _ in range(9):
        served.model.store("general", "message", {"username": "bob", "text": "done"})
    outcome = await say(tmp_path, served, "deploy", wait="^done")
    assert (outcome.result, outcome.answer) == (Result.UNKNOWN, None)
    assert "another history" in outcome.reason


async def test_the_first_answer_counts_also_if_a_page_of_history_has_several(tmp_path: Path) -> None:
    served = ServedModel()
    assert (await say(tmp_path, served, "deploy", wait="^done")).result is Result.UNKNOWN
    for text in (*map(str, range(PAGE)), "done", "done too", *map(str, range(RECOVERED))):
        served.model.store("general", "message", {"username": "bob", "text": text})
    assert (await say(tmp_path, served, "deploy", wait="^done")).answer == "done"


async def test_if_it_is_refused_no_answer_is_waited_for(tmp_path: Path) -> None:
    began = trio.current_time()
    assert (await say(tmp_path, ServedModel(), "refused", wait="^done")).result is Result.REFUSED
    assert trio.current_time() - began < 5


# Faults of this machine


async def test_a_full_disk_is_told_and_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel()
    command = Command(tmp_path, served)

    def append(lines: Iterable[str], *, sync: bool) -> None:
        raise OutboxFailed("the outbox can't be used (No space left on device)")

    monkeypatch.setattr(command.outbox, "append", append)
    with pytest.RaisesGroup(StartError, flatten_subgroups=True):
        await command.run("hi")
    assert stored(served) == []


async def test_a_disk_that_gets_full_leaves_it_unknown_what_becomes_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel()
    command = Command(tmp_path, served)
    append, full = command.outbox.append, []

    def append_if_it_fits(lines: Iterable[str], *, sync: bool) -> None:
        if full:
            raise OutboxFailed("the outbox can't be used (No space left on device)")
        append(lines, sync=sync)

    async def give(sayer: Sayer) -> None:
        await sayer.give(["a", "b"])
        while len(stored(served)) < 2:  # noqa: ASYNC110  (time is virtual)
            await trio.sleep(0.1)
        full.append(True)
        await sayer.give(["c"])

    monkeypatch.setattr(command.outbox, "append", append_if_it_fits)
    outcome = await command.run(feed=give)
    assert (outcome.result, outcome.stored) == (Result.UNKNOWN, 2)
    assert outcome.reason == "the outbox can't be used (No space left on device)"
    assert (await say(tmp_path, served, "a", "b", "c")).result is Result.STORED
    assert stored(served) == ["a", "b", "c"]


async def test_a_disk_that_is_full_when_the_client_comes_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel()
    served.deaf_to = {"message"}
    assert (await say(tmp_path, nowhere, "another", seconds=5)).result is Result.UNKNOWN
    batch = Batch("b", NOW, [Entry("c", "earlier")], sent=True)
    command = Command(tmp_path, served)
    command.outbox.append(lines_of(batch), sync=False)
    command.outbox.close()
    command = Command(tmp_path, served)
    append = command.outbox.append

    def append_if_it_fits(lines: Iterable[str], *, sync: bool) -> None:
        if any("sent" in line for line in lines):
            raise OutboxFailed("no space")
        append(lines, sync=sync)

    monkeypatch.setattr(command.outbox, "append", append_if_it_fits)
    outcome = await command.run("earlier")
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "no space")


async def test_what_the_feed_raises_comes_out(tmp_path: Path) -> None:
    async def broken(sayer: Sayer) -> None:
        await sayer.give(["a"])
        raise StartError("line 2 isn't UTF-8")

    with pytest.RaisesGroup(StartError, flatten_subgroups=True):
        await Command(tmp_path, ServedModel()).run(feed=broken)


async def test_the_lines_of_the_outbox_are_there_before_anything_is_sent(tmp_path: Path) -> None:
    served = ServedModel()
    held = []

    async def looking(stream: trio.abc.Stream) -> None:
        held.append(
            [json.loads(line).get("text") for line in waiting(tmp_path).splitlines() if "text" in line]
        )
        await served(stream)

    await say(tmp_path, looking, "a", "b")
    assert held == [["a", "b"]]


async def test_a_server_that_cannot_be_reached_at_first_is_found_later(tmp_path: Path) -> None:
    served = ServedModel()
    command = Command(tmp_path, served)
    async with trio.open_nursery() as nursery:
        command.dialer = MemoryDialer(nursery, served)

        async def give(sayer: Sayer) -> None:
            assert command.dialer is not None
            command.dialer.fails = [Unreachable("Connection refused")] * 3
            await sayer.give(["a"])
            sayer.end()

        outcome = await command.run(feed=give)
    assert outcome.result is Result.STORED
