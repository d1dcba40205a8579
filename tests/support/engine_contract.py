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
from chatroom.core.messages import (
    STORED,
    Act,
    Conflict,
    Delete,
    Deleted,
    Denial,
    Denied,
    Done,
    Draft,
    Duplicate,
    Edit,
    Edited,
    Head,
    Message,
    Moderate,
    Moderated,
    NotFound,
    Outcome,
    Page,
    Record,
)
from chatroom.core.sanctions import LASTING, MAX_SANCTIONS, Action, Sanction
from chatroom.engines.engine import Engine
from tests.support.engines import append, history, open_room, read

TS = time.time_ns() // 1_000_000
"""The time of all drafts: now, since sanctions end by the clock."""
HOUR = 3_600_000
HOSTILE = ["", "\0", "'; DROP TABLE messages; --", "%s{}", "\n\r\u2028", "\u202e<b>", "😀é", "x" * 4000]


def draft(text: str = "hi", cid: str | None = None, *, room: str = "r", username: str = "alice") -> Draft:
    return Draft(room, username, text, cid, TS)


def edit(
    about: int, text: str, cid: str | None = None, *, username: str = "alice", within: int = HOUR
) -> Draft:
    return Draft("r", username, text, cid, TS, act=Edit(about, within))


def delete(
    about: int,
    cid: str | None = None,
    *,
    username: str = "alice",
    within: int = HOUR,
    moderator: bool = False,
) -> Draft:
    return Draft("r", username, "", cid, TS, moderator, Delete(about, within))


def moderate(
    action: Action,
    target: str = "bob",
    seconds: int | None = None,
    *,
    reason: str = "",
    cid: str | None = None,
    room: str = "r",
    username: str = "carol",
) -> Draft:
    return Draft(room, username, reason, cid, TS, True, Moderate(action, target, seconds))


def ids(records: Sequence[Record]) -> list[int]:
    return [record.id for record in records]


async def fill(engine: Engine, count: int, room: str = "r") -> Head:
    """Open the room and store `count` messages that say their ids."""
    head = await open_room(engine, room)
    first = head.last_id + 1
    drafts = [draft(str(number), room=room) for number in range(first, first + count)]
    assert all(isinstance(outcome, Message) for outcome in await append(engine, drafts))
    return Head(head.epoch, head.last_id + count)


async def read_all(engine: Engine, room: str, last_id: int) -> list[Record]:
    """All that is kept, piece by piece."""
    after, found = engine.first_id(room) - 1, list[Record]()
    while after < last_id:
        found += await read(engine, room, after, last_id, 7)
        assert found[-1].id > after
        after = found[-1].id
    return found


async def pages(
    engine: Engine, room: str, upto: int, limit: int, *, newest_first: bool = False, max_bytes: int = 1 << 20
) -> list[Message]:
    """All messages that history has, ascending, page by page."""
    found = list[Message]()
    more = True
    while more:
        page = await history(
            engine,
            room,
            before=(found[0].id if found else None) if newest_first else None,
            after=None if newest_first else (found[-1].id if found else 0),
            upto=upto,
            limit=limit,
            max_bytes=max_bytes,
        )
        assert page.messages or not more or not found
        found = [*page.messages, *found] if newest_first else [*found, *page.messages]
        assert not page.more or page.messages
        more = page.more
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
        """The same; records that a store has dated, by its clock, as of TS."""
        if not self.store_dates:
            return list(found)
        return [self._undated(each) for each in found]

    @staticmethod
    def _undated(outcome: Outcome) -> Outcome:
        if not isinstance(outcome, STORED):
            return outcome
        assert abs(outcome.ts / 1000 - time.time()) < 60
        if isinstance(outcome, Moderated) and outcome.until is not None:
            outcome = outcome._replace(until=outcome.until - outcome.ts + TS)
        return outcome._replace(ts=TS)

    async def after(self, engine: Engine, *drafts: Draft) -> list[Outcome]:
        """The outcomes of one batch."""
        return self.undated(await append(engine, drafts))

    async def kept(self, engine: Engine) -> list[Outcome]:
        """All records of the room "r"."""
        return self.undated(await read_all(engine, "r", (await engine.head("r")).last_id))

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

    # Edits and deletions

    async def test_an_edit_is_a_record_and_the_message_has_its_text(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("helo", "c"), draft("2")])
            edited = Edited(3, TS, "alice", "hello", "e", 1, 1)
            assert await self.after(engine, edit(1, "hello", "e")) == [edited]
            assert await self.kept(engine) == [
                Message(1, TS, "alice", "hello", "c", edited=3),
                Message(2, TS, "alice", "2", None),
                edited,
            ]

    async def test_the_text_that_an_edit_has_brought_goes_with_the_next_one(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1")])
            await append(engine, [edit(1, "2")])
            assert await self.after(engine, edit(1, "3")) == [Edited(3, TS, "alice", "3", None, 1, 2)]
            assert await self.after(engine, delete(1)) == [Deleted(4, TS, "alice", "", None, 1, "alice", 3)]
            assert await self.kept(engine) == [
                Message(1, TS, "alice", "", None, edited=3, deleted=4),
                Edited(2, TS, "alice", "", None, 1, 1),
                Edited(3, TS, "alice", "", None, 1, 2),
                Deleted(4, TS, "alice", "", None, 1, "alice", 3),
            ]

    async def test_drafts_of_one_batch_are_judged_one_behind_the_other(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            outcomes = await self.after(
                engine,
                *(edit(1, "early"), draft("1", "c"), edit(1, "2"), edit(1, "3"), draft("1", "c")),
                *(delete(1), edit(1, "4"), delete(1), draft("5")),
            )
            assert outcomes == [
                NotFound(),
                Message(1, TS, "alice", "1", "c"),
                Edited(2, TS, "alice", "2", None, 1, 1),
                Edited(3, TS, "alice", "3", None, 1, 2),
                Duplicate(1),
                Deleted(4, TS, "alice", "", None, 1, "alice", 3),
                NotFound(),
                Done(),
                Message(5, TS, "alice", "5", None),
            ]
            kept = await read(engine, "r", 0, 5, 50)
            assert [each.text for each in kept] == ["", "", "", "", "5"]

    async def test_a_text_is_changed_by_its_author_alone_and_deleted_by_moderators_too(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1"), draft("2")])
            by_moderator = edit(1, "mine", username="carol")
            by_moderator.moderator = True
            denied = Denied(Denial.NOT_YOURS)
            assert await self.after(
                engine,
                *(edit(1, "mine", username="bob"), by_moderator, delete(1, username="bob")),
                delete(1, username="carol", within=0, moderator=True),
            ) == [denied, denied, denied, Deleted(3, TS, "carol", "", None, 1, "alice", 1)]

    async def test_only_messages_that_are_kept_can_be_changed(self) -> None:
        async with self.opened(keep=4) as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1")])
            await append(engine, [edit(1, "2"), moderate(Action.KICK)])
            assert (
                await self.after(
                    engine,
                    *(
                        change(about)
                        for about in (-1, 0, 2, 3, 4, 99, 2**63 - 1)
                        for change in (delete, lambda about: edit(about, "x"))
                    ),
                )
                == [NotFound()] * 14
            )
            await fill(engine, 20)
            assert await self.after(engine, delete(1), edit(1, "x"), delete(19)) == [
                NotFound(),
                NotFound(),
                NotFound()
                if engine.first_id("r") > 19
                else Deleted(24, TS, "alice", "", None, 19, "alice", 19),
            ]

    async def test_a_message_is_changed_within_the_time_for_it(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1")])
            late = Denied(Denial.TOO_LATE)
            assert await self.after(engine, edit(1, "x", within=0), delete(1, within=0)) == [late, late]
            assert await self.after(engine, delete(1, within=60_000)) == [
                Deleted(2, TS, "alice", "", None, 1, "alice", 1)
            ]

    async def test_a_retry_is_known_whatever_has_become_of_the_text(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1", "m"), edit(1, "2", "e")])
            assert await self.after(engine, draft("1", "m"), draft("other", "m")) == [Duplicate(1)] * 2
            assert await self.after(engine, edit(1, "2", "e"), edit(1, "other", "e")) == [
                Duplicate(2),
                Conflict(),
            ]
            await append(engine, [edit(1, "3", "f"), delete(1, "d")])
            engine.release("r")
            await open_room(engine, "r")
            assert await self.after(
                engine, draft("other", "m"), edit(1, "other", "e"), edit(1, "3", "f"), delete(1, "d")
            ) == [Duplicate(1), Duplicate(2), Duplicate(3), Duplicate(4)]

    async def test_a_cid_that_another_draft_has_is_a_conflict(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            first = [
                *(draft("1", "m"), draft("2"), edit(1, "1", "e"), delete(2, "d")),
                moderate(Action.MUTE, reason="1", cid="s", username="alice"),
            ]
            await append(engine, first)
            others = [
                *(
                    edit(1, "1", "m"),
                    delete(1, "m"),
                    moderate(Action.MUTE, reason="1", cid="m", username="alice"),
                ),
                *(draft("1", "e"), delete(1, "e"), edit(2, "1", "e")),
                *(draft("", "d"), edit(2, "", "d"), delete(1, "d")),
                *(draft("1", "s"), moderate(Action.BAN, reason="1", cid="s", username="alice")),
                moderate(Action.MUTE, "ben", reason="1", cid="s", username="alice"),
                moderate(Action.MUTE, reason="2", cid="s", username="alice"),
                moderate(Action.MUTE, seconds=60, reason="1", cid="s", username="alice"),
            ]
            assert await self.after(engine, *others) == [Conflict()] * len(others)
            assert await self.after(engine, *first) == [
                *(Duplicate(1), Message(6, TS, "alice", "2", None), Duplicate(3), Duplicate(4), Duplicate(5))
            ]

    async def test_a_change_among_many_messages_leaves_the_others_as_they_are(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            drafts = [draft(str(number), f"c{number}" if number % 3 else None) for number in range(1, 331)]
            for start in range(0, 330, 110):
                await append(engine, drafts[start : start + 110])
            await append(engine, [edit(165, "edited"), delete(1), edit(330, "last")])
            texts = [str(number) for number in range(1, 331)]
            texts[0], texts[164], texts[329] = "", "edited", "last"
            found = await read_all(engine, "r", 333)
            assert [each.text for each in found] == [*texts, "edited", "", "last"]
            assert [each.text for each in await pages(engine, "r", 333, 50)] == texts
            assert [each.text for each in await pages(engine, "r", 333, 50, newest_first=True)] == texts
            assert await append(engine, [drafts[99], drafts[163], draft("x", "c166")]) == [
                Duplicate(100),
                Duplicate(164),
                Conflict(),
            ]

    async def test_changed_messages_are_trimmed_as_all_are(self) -> None:
        async with self.opened(keep=4) as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1", "c"), draft("2"), edit(1, "3", "e")])
            assert await self.after(engine, draft("x", "c")) == [Duplicate(1)]
            await fill(engine, 20)
            assert engine.first_id("r") > 3
            kept = await read_all(engine, "r", 23)
            assert ids(kept) == list(range(engine.first_id("r"), 24))
            with pytest.raises(Trimmed):
                await read(engine, "r", 0, 23, 50)
            assert await self.after(engine, draft("x", "c"), draft("y", "e")) == [
                Message(24, TS, "alice", "x", "c"),
                Message(25, TS, "alice", "y", "e"),
            ]

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_changed_texts_and_reasons_are_what_they_were(self, text: str) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            name = f"u{text[:9]}"
            batch = [
                draft(text, username=name),
                edit(1, text, "c", username=name),
                moderate(Action.MUTE, name, reason=text),
                delete(1, username="carol", moderator=True),
            ]
            assert await self.after(engine, *batch) == [
                Message(1, TS, name, text, None),
                Edited(2, TS, name, text, "c", 1, 1),
                Moderated(3, TS, "carol", text, None, Action.MUTE, name, None),
                Deleted(4, TS, "carol", "", None, 1, name, 2),
            ]
            assert await self.kept(engine) == [
                Message(1, TS, name, "", None, edited=2, deleted=4),
                Edited(2, TS, name, "", "c", 1, 1),
                Moderated(3, TS, "carol", text, None, Action.MUTE, name, None),
                Deleted(4, TS, "carol", "", None, 1, name, 2),
            ]
            assert await engine.sanctions("r") == (Sanction(Action.MUTE, name, "carol", None, text),)

    # Sanctions

    async def test_who_is_muted_may_take_words_back_and_say_none(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1", "c", username="bob"), draft("2", username="bob")])
            muted = Denied(Denial.MUTED)
            assert await self.after(
                engine,
                moderate(Action.MUTE),
                draft("3", username="bob"),
                draft("1", "c", username="bob"),
                draft("other", "c", username="bob"),
                edit(1, "3", username="bob"),
                delete(1, username="bob"),
                draft("4"),
                moderate(Action.UNMUTE),
                draft("5", username="bob"),
            ) == [
                Moderated(3, TS, "carol", "", None, Action.MUTE, "bob", None),
                muted,
                Duplicate(1),
                Conflict(),
                muted,
                Deleted(4, TS, "bob", "", None, 1, "bob", 1),
                Message(5, TS, "alice", "4", None),
                Moderated(6, TS, "carol", "", None, Action.UNMUTE, "bob", None),
                Message(7, TS, "bob", "5", None),
            ]

    async def test_who_is_banned_may_do_nothing_and_comes_before_who_is_muted(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [draft("1", username="bob"), moderate(Action.MUTE)])
            await append(engine, [moderate(Action.BAN)])
            banned = Denied(Denial.BANNED)
            assert await self.after(
                engine, draft("2", username="bob"), delete(1, username="bob"), moderate(Action.UNBAN)
            ) == [banned, banned, Moderated(4, TS, "carol", "", None, Action.UNBAN, "bob", None)]
            assert await self.after(engine, draft("2", username="bob")) == [Denied(Denial.MUTED)]

    async def test_no_sanction_bites_who_is_a_moderator(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(engine, [moderate(Action.BAN, "carol"), moderate(Action.MUTE, "carol")])
            hers = draft("1", username="carol")
            assert await self.after(engine, hers) == [Denied(Denial.BANNED)]
            hers.moderator = True
            assert await self.after(engine, hers, moderate(Action.KICK)) == [
                Message(3, TS, "carol", "1", None),
                Moderated(4, TS, "carol", "", None, Action.KICK, "bob", None),
            ]

    async def test_a_sanction_ends_at_its_time(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            mute, ban = await append(
                engine, [moderate(Action.MUTE, seconds=86_400, reason="why"), moderate(Action.BAN, seconds=0)]
            )
            assert isinstance(mute, Moderated)
            assert mute.until == mute.ts + 86_400_000
            assert isinstance(ban, Moderated)
            assert ban.until == ban.ts
            in_force = (Sanction(Action.MUTE, "bob", "carol", mute.until, "why"),)
            assert await engine.sanctions("r") == in_force
            assert (await engine.head("r")).sanctions == in_force
            assert await append(engine, [draft("1", username="bob"), moderate(Action.UNBAN)]) == [
                Denied(Denial.MUTED, mute.until),
                Done(),
            ]
            await append(engine, [moderate(Action.MUTE, seconds=0)])
            assert await engine.sanctions("r") == ()
            (outcome,) = await self.after(engine, draft("1", username="bob"))
            assert outcome == Message(4, TS, "bob", "1", None)

    async def test_what_is_done_already_is_no_record_and_a_kick_is_one_each_time(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            assert await self.after(engine, moderate(Action.UNMUTE), moderate(Action.UNBAN)) == [
                Done(),
                Done(),
            ]
            assert await self.after(engine, moderate(Action.KICK, seconds=9), moderate(Action.KICK)) == [
                Moderated(1, TS, "carol", "", None, Action.KICK, "bob", None),
                Moderated(2, TS, "carol", "", None, Action.KICK, "bob", None),
            ]
            assert await engine.sanctions("r") == ()
            await append(engine, [moderate(Action.MUTE, "ann"), moderate(Action.MUTE, reason="new")])
            await append(engine, [moderate(Action.MUTE, "ann", reason="newer")])
            assert await engine.sanctions("r") == (
                Sanction(Action.MUTE, "ann", "carol", None, "newer"),
                Sanction(Action.MUTE, "bob", "carol", None, "new"),
            )

    async def test_sanctions_outlive_their_records_and_the_use_of_their_room(self) -> None:
        async with self.opened(keep=2) as engine:
            await open_room(engine, "r")
            await append(engine, [moderate(Action.MUTE, reason="why"), draft("x")])
            await fill(engine, 20)
            assert engine.first_id("r") > 1
            sanctions = (Sanction(Action.MUTE, "bob", "carol", None, "why"),)
            assert (await engine.head("r")).sanctions == sanctions
            engine.release("r")
            assert await engine.sanctions("r") == sanctions
            head = await open_room(engine, "r")
            assert (head.sanctions, head.others) == (sanctions, 1)
            assert await append(engine, [draft("1", username="bob")]) == [Denied(Denial.MUTED)]
            assert await engine.sanctions("another") == ()

    async def test_a_room_has_a_bounded_number_of_sanctions(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            names = [f"user{number}" for number in range(MAX_SANCTIONS)]
            for start in range(0, MAX_SANCTIONS, 250):
                mutes = [
                    moderate(Action.MUTE, name, 0 if name == "user7" else None)
                    for name in names[start : start + 250]
                ]
                assert all(isinstance(each, Moderated) for each in await append(engine, mutes))
            last = MAX_SANCTIONS
            full = Denied(Denial.TOO_MANY)
            mute, unmute = Action.MUTE, Action.UNMUTE
            assert await self.after(
                engine,
                *(moderate(mute, "one"), moderate(mute, "two"), moderate(Action.BAN, "user1")),
                *(moderate(mute, "user1", reason="again"), moderate(unmute, "user2"), moderate(mute, "two")),
            ) == [
                Moderated(last + 1, TS, "carol", "", None, mute, "one", None),  # in the place of user7
                *(full, full),
                Moderated(last + 2, TS, "carol", "again", None, mute, "user1", None),
                Moderated(last + 3, TS, "carol", "", None, unmute, "user2", None),
                Moderated(last + 4, TS, "carol", "", None, mute, "two", None),
            ]
            found = await engine.sanctions("r")
            assert {each.username for each in found} == {*names, "one", "two"} - {"user2", "user7"}
            assert await self.after(engine, moderate(mute, "three")) == [full]

    async def test_the_last_actions_of_moderators_are_told(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            head = await engine.head("r")
            assert await engine.moderations("r", head.epoch, upto=0, limit=9) == []
            for number in range(1, 140):
                await append(engine, [moderate(Action.KICK, f"u{number}"), draft("x"), edit(2, "x")])

            async def found(upto: int, limit: int) -> list[int]:
                return ids(await engine.moderations("r", head.epoch, upto=upto, limit=limit))

            moderations = [number for number in range(1, 418) if number % 3 == 1]
            assert await found(417, 1000) == moderations
            assert await found(417, 7) == moderations[-7:]
            assert await found(7, 2) == [4, 7]
            assert await found(6, 9) == [1, 4]
            with pytest.raises(Replaced):
                await engine.moderations("r", "another", upto=9, limit=9)

    # Other records between messages

    @pytest.mark.parametrize("limit", [1, 3, 5])
    async def test_messages_that_are_far_apart_are_found_all_the_same(self, limit: int) -> None:
        async with self.opened(keep=5000) as engine:
            await open_room(engine, "r")
            for start in (1, 1203, 2405):
                await append(engine, [draft(f"{start}"), draft("x")])
                for _ in range(6):
                    await append(engine, [edit(start, "y")] * 200)
            last = (await engine.head("r")).last_id
            assert last == 3606
            expected = [1, 2, 1203, 1204, 2405, 2406]
            for newest_first in (False, True):
                found = await pages(engine, "r", last, limit, newest_first=newest_first)
                assert ids(found) == expected

    async def test_a_head_tells_how_many_records_are_no_messages(self) -> None:
        async with self.opened(keep=3) as engine:
            head = await open_room(engine, "r")
            assert head.others == 0
            await append(engine, [draft("1"), edit(1, "2"), delete(1), delete(1), moderate(Action.KICK)])
            assert await engine.head("r") == Head(head.epoch, 4, 3)
            await fill(engine, 20)
            assert await engine.head("r") == Head(head.epoch, 24, 3)
            engine.release("r")
            assert await open_room(engine, "r") == Head(head.epoch, 24, 3)

    async def test_history_has_messages_only_and_says_rightly_whether_there_are_more(self) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            kick = moderate(Action.KICK)
            await append(engine, [kick, draft("2"), kick, kick, draft("5"), draft("6"), kick, edit(2, "8")])

            async def page(limit: int, **where: int | None) -> tuple[list[int], bool]:
                where = {"before": None, "after": None, **where}
                found = await history(engine, "r", upto=8, limit=limit, **where)  # type: ignore[arg-type]
                assert all(isinstance(each, Message) for each in found.messages)
                return ids(found.messages), found.more

            assert await page(9) == ([2, 5, 6], False)
            assert await page(3) == ([2, 5, 6], False)
            assert await page(2) == ([5, 6], True)
            assert await page(2, before=6) == ([2, 5], False)
            assert await page(1, before=5) == ([2], False)
            assert await page(1, before=2) == ([], False)
            assert await page(3, after=0) == ([2, 5, 6], False)
            assert await page(2, after=0) == ([2, 5], True)
            assert await page(1, after=3) == ([5], True)
            assert await page(1, after=5) == ([6], False)
            assert await page(1, after=6) == ([], False)

    @pytest.mark.parametrize("limit", [1, 3, 50])
    async def test_pages_of_history_have_each_message_once(self, limit: int) -> None:
        async with self.opened() as engine:
            await open_room(engine, "r")
            await append(
                engine,
                [
                    draft(str(number)) if number % 7 in (0, 1) else moderate(Action.KICK)
                    for number in range(1, 201)
                ],
            )
            expected = [number for number in range(1, 201) if number % 7 in (0, 1)]
            assert ids(await pages(engine, "r", 200, limit)) == expected
            assert ids(await pages(engine, "r", 200, limit, newest_first=True)) == expected
            assert ids(await pages(engine, "r", 200, limit, max_bytes=4)) == expected
            assert ids(await pages(engine, "r", 200, limit, newest_first=True, max_bytes=4)) == expected
            assert ids(await pages(engine, "r", 100, limit)) == [each for each in expected if each <= 100]

    async def test_messages_that_are_far_apart_are_on_one_page(self) -> None:
        async with self.opened(keep=6000) as engine:
            await open_room(engine, "r")
            for _ in range(2):
                await append(engine, [draft("x")])
                for _ in range(10):
                    await append(engine, [moderate(Action.KICK)] * 250)
            for limit, newest in ((2, [1, 2502]), (1, [2502])):
                page = await history(engine, "r", before=None, after=None, upto=5002, limit=limit)
                assert (ids(page.messages), page.more) == (newest, limit == 1)
                page = await history(engine, "r", before=None, after=0, upto=5002, limit=limit)
                assert (ids(page.messages), page.more) == ([1, 2502][:limit], limit == 1)

    # All rooms

    async def test_a_summary_tells_where_each_room_stands(self) -> None:
        async with self.opened(keep=2) as engine:
            assert await engine.summaries() == []
            for room, count in (("a", 1), ("b{}%*", 20), ("unused", 3), ("empty", 0)):
                await fill(engine, count, room)
            await append(engine, [moderate(Action.KICK, room="a")])
            engine.release("unused")
            found = {each.room: each for each in await engine.summaries()}
            assert {room: each.last_id for room, each in found.items()} == {"a": 2, "b{}%*": 20, "unused": 3}
            for room, each in found.items():
                if room != "unused":
                    (last,) = await read(engine, room, each.last_id - 1, each.last_id, 1)
                    assert each.last_ts == last.ts
                assert not each.members

    # Against a model

    def test_any_batches_leave_what_a_model_of_them_leaves(self) -> None:
        names = st.sampled_from(["ann", "bob"])
        about = st.integers(1, 6)
        within = st.sampled_from([HOUR, HOUR, HOUR, 0])
        acts = st.one_of(
            st.none(),
            st.builds(Edit, about, within),
            st.builds(Delete, about, within),
            st.builds(Moderate, st.sampled_from(Action), names, st.sampled_from([None, None, 0])),
        )
        commands = st.tuples(
            *(st.sampled_from("ab"), names, st.sampled_from("xy"), st.sampled_from(["", "", "1", "2"])),
            *(st.booleans(), acts),
        )

        @given(
            st.lists(st.lists(commands, max_size=8), max_size=6)
        )  # in here: each class has a run of its own
        def check(batches: list[list[Command]]) -> None:
            trio.run(self._leave_what_a_model_leaves, batches)

        check()

    async def _leave_what_a_model_leaves(self, batches: "list[list[Command]]") -> None:
        async with self.opened() as engine:
            models = {"a": Model(), "b": Model()}
            for room in models:
                await open_room(engine, room)
            for batch in batches:
                drafts = [
                    Draft(
                        room, name, "" if isinstance(act, Delete) else text, cid or None, TS, moderator, act
                    )
                    for room, name, text, cid, moderator, act in batch
                ]
                expected = [models[each.room].append(each) for each in drafts]
                assert self.undated(await append(engine, drafts)) == expected
            for room, model in models.items():
                await self._agree(engine, room, model)

    async def _agree(self, engine: Engine, room: str, model: "Model") -> None:
        last = len(model.records)
        assert self.undated(await read_all(engine, room, last)) == model.records
        messages = [each for each in model.records if isinstance(each, Message)]
        for newest_first in (False, True):
            assert self.undated(await pages(engine, room, last, 2, newest_first=newest_first)) == messages
        moderated = [each for each in model.records if isinstance(each, Moderated)]
        head = await engine.head(room)
        assert self.undated(await engine.moderations(room, head.epoch, upto=last, limit=99)) == moderated
        assert (head.last_id, head.others) == (last, last - len(messages))
        assert {(each.action, each.username): each.by for each in head.sanctions} == model.sanctions
        assert await engine.sanctions(room) == head.sanctions


Command = tuple[str, str, str, str, bool, Act | None]


@dataclass
class Model:
    """One room's log, as simple as can be.

    `drafts`: those of the records; `sanctions`: who has taken those that are in force.
    """

    records: list[Record] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    sanctions: dict[tuple[Action, str], str] = field(default_factory=dict)

    def append(self, draft: Draft) -> Outcome:
        for record, before in zip(self.records, self.drafts, strict=True):
            if draft.cid is not None and (record.username, record.cid) == (draft.username, draft.cid):
                return Duplicate(record.id) if self._is_same(draft, before, record) else Conflict()
        outcome = self._denied(draft) or self._judge(draft)
        if isinstance(outcome, STORED):
            self.records.append(outcome)
            self.drafts.append(draft)
        return outcome

    def _is_same(self, draft: Draft, before: Draft, record: Record) -> bool:
        same = draft.text == before.text
        match draft.act, before.act:
            case None, None:
                assert isinstance(record, Message)
                return same or record.edited is not None or record.deleted is not None
            case Edit(), Edit():
                return draft.act.about == before.act.about and (same or not record.text)
            case Delete(), Delete():
                return draft.act.about == before.act.about
            case Moderate(), Moderate():
                lasts = draft.act.action in LASTING
                return draft.act[: 3 if lasts else 2] == before.act[: 3 if lasts else 2] and same
        return False

    def _denied(self, draft: Draft) -> Outcome | None:
        if draft.moderator or isinstance(draft.act, Moderate):
            return None
        if (Action.BAN, draft.username) in self.sanctions:
            return Denied(Denial.BANNED)
        if (Action.MUTE, draft.username) in self.sanctions and not isinstance(draft.act, Delete):
            return Denied(Denial.MUTED)
        return None

    def _judge(self, draft: Draft) -> Outcome:
        start = (len(self.records) + 1, draft.ts, draft.username, draft.text, draft.cid)
        match draft.act:
            case None:
                return Message(*start)
            case Moderate():
                return self._moderate(draft.act, start)
        found = self.records[draft.act.about - 1 : draft.act.about]
        if not found or not isinstance(target := found[0], Message):
            return NotFound()
        if target.deleted is not None:
            return Done() if isinstance(draft.act, Delete) else NotFound()
        if not (isinstance(draft.act, Delete) and draft.moderator):
            if target.username != draft.username:
                return Denied(Denial.NOT_YOURS)
            if draft.act.within == 0:
                return Denied(Denial.TOO_LATE)
        replaced = target.edited or target.id
        if target.edited is not None:
            self.records[replaced - 1] = self.records[replaced - 1]._replace(text="")
        if isinstance(draft.act, Edit):
            self.records[target.id - 1] = target._replace(text=draft.text, edited=start[0])
            return Edited(*start, target.id, replaced)
        self.records[target.id - 1] = target._replace(text="", deleted=start[0])
        return Deleted(*start, target.id, target.username, replaced)

    def _moderate(self, act: Moderate, start: tuple[int, int, str, str, str | None]) -> Outcome:
        lasts = act.action in (Action.MUTE, Action.BAN)
        kind = {Action.UNMUTE: Action.MUTE, Action.UNBAN: Action.BAN}.get(act.action, act.action)
        if lasts and act.seconds is None:
            self.sanctions[kind, act.target] = start[2]
        elif act.action is not Action.KICK:
            known = self.sanctions.pop((kind, act.target), None)
            if not lasts and known is None:
                return Done()
        return Moderated(*start, act.action, act.target, start[1] if lasts and act.seconds == 0 else None)
