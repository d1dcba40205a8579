"""What every engine must do, in one suite that each engine's own test file runs.

    class TestContract(EngineContract):
        def opened(self, keep: int = 500) -> AbstractAsyncContextManager[Engine]: …

1. Only the port is used: what is tested here is what those above the port rely on.
2. Every test has an engine of its own, with nothing in it.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.errors import Replaced, Trimmed
from chatroom.core.messages import Conflict, Draft, Duplicate, Head, Message, Outcome, Page
from chatroom.engines.engine import Engine
from tests.support.engines import append, history, open_room, read

TS = 1_764_000_000_000
HOSTILE = ["", "\0", "'; DROP TABLE messages; --", "%s{}", "\n\r\u2028", "\u202e<b>", "😀é", "x" * 4000]


def draft(text: str = "hi", cid: str | None = None, *, room: str = "r", username: str = "alice") -> Draft:
    return Draft(room, username, text, cid, TS)


def ids(messages: list[Message] | tuple[Message, ...]) -> list[int]:
    return [message.id for message in messages]


async def fill(engine: Engine, count: int, room: str = "r") -> Head:
    """Open the room and store `count` messages that say their ids."""
    head = await open_room(engine, room)
    first = head.last_id + 1
    drafts = [draft(str(number), room=room) for number in range(first, first + count)]
    assert all(isinstance(outcome, Message) for outcome in await append(engine, drafts))
    return Head(head.epoch, head.last_id + count)


async def read_all(engine: Engine, room: str, last_id: int) -> list[Message]:
    """All that is kept, piece by piece."""
    after, found = engine.first_id(room) - 1, list[Message]()
    while after < last_id:
        found += await read(engine, room, after, last_id, 7)
        assert found[-1].id > after
        after = found[-1].id
    return found


class EngineContract:
    """To be inherited by a test class of each engine.

    `store_dates`: messages get the time of the store's clock, not the draft's.
    """

    store_dates = False

    def opened(self, keep: int = 500) -> AbstractAsyncContextManager[Engine]:
        """An engine without any message, which keeps `keep` messages a room."""
        raise NotImplementedError

    def undated(self, found: Sequence[Outcome]) -> list[Outcome]:
        """The same; messages that a store has dated, by its clock, as of TS."""
        if not self.store_dates:
            return list(found)
        assert all(abs(each.ts / 1000 - time.time()) < 60 for each in found if isinstance(each, Message))
        return [each._replace(ts=TS) if isinstance(each, Message) else each for each in found]

    # Opening and releasing

    async def test_a_room_that_is_new_stands_at_zero_in_an_epoch_with_a_name(self) -> None:
        async with self.opened() as engine:
            head = await open_room(engine, "r")
            assert head.last_id == 0
            assert 1 <= len(head.epoch) <= 64
            assert head.epoch.isprintable()
            assert engine.first_id("r") == 1
            assert await history(engine, "r", before=None, after=None, upto=0, limit=50) == Page(
                (), more=False
            )
            assert await read(engine, "r", 0, 0, 50) == []

    async def test_a_room_that_was_released_and_is_opened_again_goes_on_where_it_stood(self) -> None:
        async with self.opened() as engine:
            head = await fill(engine, 3)
            engine.release("r")
            assert await open_room(engine, "r") == head
            assert ids(await read(engine, "r", 0, 3, 50)) == [1, 2, 3]
            (outcome,) = self.undated(await append(engine, [draft("4")]))
            assert outcome == Message(4, TS, "alice", "4", None)

    async def test_an_epoch_that_is_told_again_has_lost_no_id(self) -> None:
        """The rule that a resume rests on, tried on rooms with and without messages, used and released."""
        async with self.opened() as engine:
            known: dict[str, Head] = {}
            for turn in range(4):
                for number in range(5):
                    room = f"room-{number}"
                    head = await open_room(engine, room)
                    before = known.get(room, head)
                    assert head.epoch != before.epoch or head.last_id >= before.last_id
                    known[room] = await fill(engine, number and turn, room)
                    engine.release(room)

    async def test_rooms_have_logs_of_their_own(self) -> None:
        async with self.opened() as engine:
            await fill(engine, 2, "a")
            await fill(engine, 3, "b")
            engine.release("a")
            assert ids(await read(engine, "b", 0, 3, 50)) == [1, 2, 3]
            assert (await open_room(engine, "a")).last_id == 2

    @pytest.mark.parametrize("name", ["A", "a", "é", "😀", "a/b", "..", "*", "'", "x" * 64])
    async def test_names_of_rooms_are_taken_as_they_are(self, name: str) -> None:
        async with self.opened() as engine:
            await fill(engine, 1, name)
            await fill(engine, 2, "A " if name == "A" else "A")
            assert ids(await read(engine, name, 0, 1, 50)) == [1]

    # Appending

    async def test_ids_are_dense_in_the_order_of_the_drafts_per_room(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "a")
            await open_room(engine, "b")
            outcomes = await append(
                engine, [draft(text, room=text[0]) for text in ("a1", "b1", "a2", "a3", "b2")]
            )
            assert [outcome.id for outcome in outcomes if isinstance(outcome, Message)] == [
                1,
                1,
                2,
                3,
                2,
            ]
            outcomes = await append(engine, [draft("a4", room="a")])
            assert self.undated(outcomes) == [Message(4, TS, "alice", "a4", None)]
            assert [message.text for message in await read(engine, "a", 0, 4, 50)] == ["a1", "a2", "a3", "a4"]

    async def test_what_is_asked_is_answered_once_and_where_it_was_asked(self) -> None:
        async with self.opened() as engine:
            send, answers = trio.open_memory_channel[tuple[object, object]](9)

            def answered(answer: object) -> None:
                send.send_nowait((trio.lowlevel.current_root_task(), answer))

            engine.open("r", answered)
            here, head = await answers.receive()
            engine.append([draft("hi")], answered)
            there, outcomes = await answers.receive()
            assert here is there is trio.lowlevel.current_root_task()
            assert isinstance(head, Head)
            assert isinstance(outcomes, list)
            assert self.undated(outcomes) == [Message(1, TS, "alice", "hi", None)]
            await read(engine, "r", 0, 1, 1)
            assert answers.statistics().current_buffer_used == 0

    async def test_nothing_appended_is_nothing_stored(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            assert await append(engine, []) == []

    async def test_what_is_told_as_stored_is_what_is_read_back(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            drafts = [
                draft(text, cid, username=f"u{text[:9]}")
                for text in HOSTILE
                for cid in (None, text[:64] or "c")
            ]
            outcomes = await append(engine, drafts)
            messages = [outcome for outcome in outcomes if isinstance(outcome, Message)]
            assert self.undated(messages) == [
                Message(number, TS, draft.username, draft.text, draft.cid)
                for number, draft in enumerate(drafts, 1)
            ]
            assert await read(engine, "r", 0, len(drafts), len(drafts)) == messages

    async def test_a_retry_is_told_where_it_is_stored_and_is_not_stored_again(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            first, again = self.undated(
                await append(engine, [draft("hi", "c"), draft("hi", "c")])
            )  # in one batch
            assert first == Message(1, TS, "alice", "hi", "c")
            assert again == Duplicate(1)
            assert self.undated(await append(engine, [draft("hi", "c"), draft("new")])) == [
                Duplicate(1),
                Message(2, TS, "alice", "new", None),
            ]

    async def test_a_retry_with_another_text_is_a_conflict_and_nothing_is_stored(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            batch = [draft("hi", "c"), draft("ho", "c"), draft("hi ", "c"), draft("hi", "c")]
            assert self.undated(await append(engine, batch)) == [
                Message(1, TS, "alice", "hi", "c"),
                Conflict(),
                Conflict(),
                Duplicate(1),
            ]
            assert ids(await read(engine, "r", 0, 1, 50)) == [1]

    async def test_a_cid_belongs_to_its_user_in_its_room(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await open_room(engine, "s")
            outcomes = await append(
                engine,
                [
                    draft("hi", "c"),
                    draft("ho", "c", username="bob"),
                    draft("ho", "c", room="s"),
                    draft("ho", "C"),
                ],
            )
            assert all(isinstance(outcome, Message) for outcome in outcomes)
            outcomes = await append(engine, [draft("same"), draft("same")])
            assert all(isinstance(outcome, Message) for outcome in outcomes)

    async def test_a_retry_is_known_after_the_room_was_released(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("hi", "c")])
            engine.release("r")
            await open_room(engine, "r")
            assert await append(engine, [draft("hi", "c"), draft("ho", "c")]) == [Duplicate(1), Conflict()]

    # Reading

    @pytest.mark.parametrize(
        ("after", "upto", "limit", "expected"),
        [
            (0, 9, 50, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
            (0, 9, 3, [1, 2, 3]),
            (4, 6, 50, [5, 6]),
            (4, 6, 1, [5]),
            (8, 9, 50, [9]),
            (9, 9, 50, []),
        ],
    )
    async def test_a_range_is_read_from_its_beginning(
        self, after: int, upto: int, limit: int, expected: list[int]
    ) -> None:
        async with self.opened() as engine:
            await fill(engine, 9)
            found = await read(engine, "r", after, upto, limit)
            assert ids(found) == expected
            assert [message.text for message in found] == [str(number) for number in expected]

    @pytest.mark.parametrize(
        ("before", "after", "upto", "limit", "expected", "more"),
        [
            (None, None, 9, 50, range(1, 10), False),
            (None, None, 9, 9, range(1, 10), False),
            (None, None, 9, 8, range(2, 10), True),
            (None, None, 5, 2, range(4, 6), True),
            (None, None, 0, 5, range(0), False),
            (5, None, 9, 50, range(1, 5), False),
            (5, None, 9, 4, range(1, 5), False),
            (5, None, 9, 3, range(2, 5), True),
            (1, None, 9, 50, range(0), False),
            (0, None, 9, 50, range(0), False),
            (10, None, 9, 2, range(8, 10), True),
            (2**63 - 1, None, 9, 2, range(8, 10), True),
            (8, None, 5, 2, range(4, 6), True),
            (None, 0, 9, 50, range(1, 10), False),
            (None, 0, 9, 3, range(1, 4), True),
            (None, 6, 9, 3, range(7, 10), False),
            (None, 5, 9, 3, range(6, 9), True),
            (None, 5, 7, 50, range(6, 8), False),
            (None, 9, 9, 50, range(0), False),
            (None, 7, 5, 50, range(0), False),
            (None, 2**63 - 1, 9, 50, range(0), False),
        ],
    )
    async def test_a_page_of_history(
        self, before: int | None, after: int | None, upto: int, limit: int, expected: range, more: bool
    ) -> None:
        async with self.opened() as engine:
            await fill(engine, 9)
            page = await history(engine, "r", before=before, after=after, upto=upto, limit=limit)
            assert ids(page.messages) == list(expected)
            assert page.more == more

    @pytest.mark.parametrize("letter", ["x", "é", "😀"])
    @pytest.mark.parametrize("most", [1, 99, 100, 101, 350, 899, 900, 1 << 20])
    async def test_what_is_read_ends_with_the_message_that_reaches_the_bound(
        self, letter: str, most: int
    ) -> None:
        size = len(letter.encode())
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft(letter * 100) for _ in range(9)])
            count = min(9, -(-most // (100 * size)))
            assert ids(await read(engine, "r", 0, 9, 50, most)) == list(range(1, count + 1))
            assert ids(await read(engine, "r", 0, 9, 2, most)) == list(range(1, min(2, count) + 1))

            async def page(before: int | None, after: int | None, limit: int = 50) -> tuple[list[int], bool]:
                page = await history(
                    engine, "r", before=before, after=after, upto=9, limit=limit, max_bytes=most
                )
                return ids(page.messages), page.more

            assert await page(None, None) == (list(range(10 - count, 10)), count < 9)
            assert await page(None, 0) == (list(range(1, count + 1)), count < 9)
            assert await page(5, None) == (list(range(max(1, 5 - count), 5)), count < 4)
            assert await page(None, 5) == (list(range(6, min(9, 5 + count) + 1)), count < 4)
            assert await page(None, None, 2) == (list(range(10 - min(2, count), 10)), True)

    # Which log it is

    async def test_the_head_moves_with_what_is_stored(self) -> None:
        async with self.opened() as engine:
            head = await open_room(engine, "r")
            assert await engine.head("r") == head
            await fill(engine, 3)
            assert await engine.head("r") == Head(head.epoch, 3)

    async def test_another_epoch_than_the_logs_is_not_read(self) -> None:
        async with self.opened() as engine:
            await fill(engine, 3)
            with pytest.raises(Replaced):
                await engine.read("r", "another", 0, 3, limit=50)
            with pytest.raises(Replaced):
                await engine.history("r", "another", before=None, after=None, upto=3, limit=50)

    # What is no longer kept

    async def test_a_range_whose_first_message_is_not_kept_any_more_is_not_given_in_part(self) -> None:
        async with self.opened(keep=4) as engine:
            await fill(engine, 9)
            first = engine.first_id("r")
            assert 2 <= first <= 6
            assert ids(await read(engine, "r", first - 1, 9, 50)) == list(range(first, 10))
            for after in range(first - 1):
                with pytest.raises(Trimmed):
                    await read(engine, "r", after, 9, 50)

    async def test_history_begins_with_what_is_kept(self) -> None:
        async with self.opened(keep=4) as engine:
            await fill(engine, 9)
            kept = list(range(engine.first_id("r"), 10))
            newest = await history(engine, "r", before=None, after=None, upto=9, limit=50)
            assert (ids(newest.messages), newest.more) == (kept, False)
            older = await history(engine, "r", before=kept[1], after=None, upto=9, limit=50)
            assert (ids(older.messages), older.more) == (kept[:1], False)
            assert await history(engine, "r", before=kept[0], after=None, upto=9, limit=50) == Page(
                (), more=False
            )
            newer = await history(engine, "r", before=None, after=0, upto=9, limit=2)
            assert (ids(newer.messages), newer.more) == (kept[:2], len(kept) > 2)

    async def test_ids_go_on_over_what_is_trimmed(self) -> None:
        async with self.opened(keep=1) as engine:
            head = await fill(engine, 5)
            engine.release("r")
            assert await open_room(engine, "r") == head
            assert (await fill(engine, 1)).last_id == 6

    async def test_a_cid_is_known_for_as_long_as_its_message_is_kept(self) -> None:
        async with self.opened(keep=2) as engine:
            await open_room(engine, "r")
            await append(engine, [draft("hi", "c"), draft("2")])
            assert await append(engine, [draft("hi", "c")]) == [Duplicate(1)]
            await fill(engine, 20)
            (outcome,) = self.undated(await append(engine, [draft("ho", "c")]))
            assert outcome == Message(23, TS, "alice", "ho", "c")
            assert await append(engine, [draft("ho", "c")]) == [Duplicate(23)]

    # Against a model

    def test_any_batches_leave_what_a_model_of_them_leaves(self) -> None:
        commands = st.tuples(*[st.sampled_from("ab")] * 3, st.sampled_from(["", "1", "2"]))

        @given(st.lists(st.lists(commands, max_size=6)))  # in here: each engine's class has a run of its own
        def check(batches: list[list[tuple[str, ...]]]) -> None:
            trio.run(self._leave_what_a_model_leaves, batches)

        check()

    async def _leave_what_a_model_leaves(self, batches: list[list[tuple[str, ...]]]) -> None:
        async with self.opened() as engine:
            models = {"a": Model(), "b": Model()}
            for room in models:
                await open_room(engine, room)
            for batch in batches:
                drafts = [
                    draft(text, cid or None, room=room, username=name) for room, name, text, cid in batch
                ]
                expected = [models[each.room].append(each) for each in drafts]
                assert self.undated(await append(engine, drafts)) == expected
            for room, model in models.items():
                found = await read_all(engine, room, len(model.messages))
                assert self.undated(found) == model.messages


@dataclass
class Model:
    """One room's log, as simple as can be."""

    messages: list[Message] = field(default_factory=list)

    def append(self, draft: Draft) -> Outcome:
        for message in self.messages:
            if draft.cid is not None and (message.username, message.cid) == (draft.username, draft.cid):
                return Duplicate(message.id) if message.text == draft.text else Conflict()
        message = Message(len(self.messages) + 1, draft.ts, draft.username, draft.text, draft.cid)
        self.messages.append(message)
        return message
