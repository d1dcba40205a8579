"""What of a room is shown, in which order, and what is said of the rest."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client import cursor as module
from chatroom.client.cursor import HELD_BYTES, HELD_RECORDS, Begin, Cursor, Position
from chatroom.client.events import Event, Gap, Recorded, Replaced
from chatroom.client.frames import Frame, Stand


def stand(last_id: int, replay: int = 0, epoch: str = "e") -> Stand:
    return Stand("r", epoch, last_id, replay, ())


def message(number: int) -> Frame:
    return Frame("message", {"username": "bob", "text": "hi"}, {"id": number, "room": "r"})


def told(events: Iterable[Event]) -> list[Any]:
    """The ids of records, and the other events as they are."""
    return [event.id if isinstance(event, Recorded) else event for event in events]


def entered(begin: Begin, found: Stand, position: Position | None = None, *, fill: bool = False) -> Cursor:
    """A cursor that has entered, and had nothing to tell."""
    cursor = Cursor(begin, fill=fill, position=position)
    assert told(cursor.enter(found)) == []
    return cursor


def record(cursor: Cursor, *numbers: int, size: int = 10) -> list[Any]:
    """What is told as the records come."""
    return [each for number in numbers for each in told(cursor.record(message(number), number, size))]


def page(cursor: Cursor, *numbers: int, more: bool = False) -> list[Any]:
    return told(cursor.page([message(number) for number in numbers], more))


def filling(target: int = 10) -> Cursor:
    """A cursor that has shown up to 2, and reads what is before `target`, which is held."""
    cursor = entered(Begin.NOW, stand(2), fill=True)
    assert record(cursor, target) == [Gap("r", 2, target, True)]
    return cursor


# Where it begins


def test_it_stands_nowhere_before_the_room_was_entered() -> None:
    assert Cursor(Begin.NOW, fill=False).position is None


@pytest.mark.parametrize(
    ("begin", "replay", "shown"), [(Begin.NOW, 3, [8, 9]), (Begin.RECENT, 3, [5, 6, 7, 8, 9])]
)
def test_it_begins_with_what_comes_or_with_what_is_replayed(
    begin: Begin, replay: int, shown: list[int]
) -> None:
    cursor = entered(begin, stand(7, replay))
    assert record(cursor, 5, 6, 7, 8, 9) == shown
    assert cursor.position == Position("e", 9)


def test_from_the_first_one_on_it_reads_what_is_not_replayed() -> None:
    cursor = Cursor(Begin.FIRST, fill=False)
    assert told(cursor.enter(stand(7, 3))) == [Gap("r", 0, 5, True)]
    assert record(cursor, 5, 6, 7) == []
    assert cursor.wants_page
    assert cursor.ask_page() == 0
    assert page(cursor, 1, 3, 4, 6) == [1, 3, 4, 5, 6, 7]


def test_from_the_first_one_on_nothing_is_read_if_all_is_replayed() -> None:
    cursor = entered(Begin.FIRST, stand(3, 3))
    assert not cursor.wants_page
    assert record(cursor, 1, 2, 3) == [1, 2, 3]


@pytest.mark.parametrize("begin", Begin)
def test_it_begins_in_an_empty_room(begin: Begin) -> None:
    cursor = entered(begin, stand(0))
    assert cursor.position == Position("e", 0)
    assert record(cursor, 1) == [1]


def test_only_what_was_there_at_the_entry_is_old() -> None:
    cursor = entered(Begin.RECENT, stand(7, 2))
    events = [event for number in (6, 7, 8) for event in cursor.record(message(number), number, 10)]
    assert [event.old for event in events if isinstance(event, Recorded)] == [True, True, False]


# Going on


def test_it_goes_on_behind_its_position() -> None:
    cursor = entered(Begin.NOW, stand(9, 2), Position("e", 7))
    assert record(cursor, 8, 9, 10) == [8, 9, 10]


def test_it_goes_on_where_it_was_after_a_loss() -> None:
    cursor = entered(Begin.NOW, stand(5))
    assert record(cursor, 6, 7) == [6, 7]
    cursor.lost()
    assert cursor.position == Position("e", 7)
    assert told(cursor.enter(stand(9, 2))) == []
    assert record(cursor, 8, 9) == [8, 9]


@pytest.mark.parametrize("begin", Begin)
def test_what_it_missed_and_is_not_replayed_is_a_gap(begin: Begin) -> None:
    cursor = Cursor(begin, fill=False, position=Position("e", 3))
    assert told(cursor.enter(stand(9, 2))) == [Gap("r", 3, 8, begin is Begin.FIRST)]


def test_behind_a_gap_that_is_not_filled_it_goes_on_at_once() -> None:
    cursor = Cursor(Begin.NOW, fill=False, position=Position("e", 0))
    assert told(cursor.enter(stand(9, 2))) == [Gap("r", 0, 8, False)]
    assert not cursor.wants_page
    assert cursor.position == Position("e", 7)
    assert record(cursor, 8, 9) == [8, 9]


def test_one_record_is_a_gap_and_none_is_not() -> None:
    one = Cursor(Begin.NOW, fill=False, position=Position("e", 6))
    assert told(one.enter(stand(9, 2))) == [Gap("r", 6, 8, False)]
    entered(Begin.NOW, stand(9, 2), Position("e", 7))
    entered(Begin.NOW, stand(9), Position("e", 9))


# Another history


@pytest.mark.parametrize(("begin", "shown"), [(Begin.NOW, [2, 3]), (Begin.RECENT, [2, 3])])
def test_with_another_epoch_it_begins_with_what_is_replayed(begin: Begin, shown: list[int]) -> None:
    cursor = Cursor(begin, fill=True, position=Position("e", 2))
    assert told(cursor.enter(stand(3, 2, "f"))) == [Replaced("r", "f")]
    assert record(cursor, 2, 3) == shown
    assert cursor.position == Position("f", 3)


def test_with_another_epoch_it_reads_from_the_first_one_on_if_it_began_so() -> None:
    cursor = Cursor(Begin.FIRST, fill=True, position=Position("e", 5))
    assert told(cursor.enter(stand(9, 2, "f"))) == [Replaced("r", "f"), Gap("r", 0, 8, True)]
    assert cursor.ask_page() == 0


def test_a_position_beyond_the_end_is_of_another_history() -> None:
    cursor = Cursor(Begin.NOW, fill=True, position=Position("e", 10))
    assert told(cursor.enter(stand(9, 2))) == [Replaced("r", "e")]
    assert cursor.position == Position("e", 7)
    assert record(cursor, 8, 9) == [8, 9]


@pytest.mark.parametrize("lost", [False, True])
def test_another_history_ends_the_reading_of_a_gap(lost: bool) -> None:
    cursor = filling()
    cursor.ask_page()
    if lost:
        cursor.lost()
    assert told(cursor.enter(stand(1, 1, "f"))) == [Replaced("r", "f")]
    assert not cursor.wants_page
    assert page(cursor, 3, 4) == []
    assert record(cursor, 1, 2) == [1, 2]


# Order


def test_what_comes_twice_is_shown_once() -> None:
    cursor = entered(Begin.NOW, stand(2))
    assert record(cursor, 3, 3, 2, 1, 4, 3, 4) == [3, 4]


def test_a_gap_is_told_before_the_record_behind_it() -> None:
    cursor = entered(Begin.NOW, stand(2))
    assert record(cursor, 5, 6, 8) == [Gap("r", 2, 5, False), 5, 6, Gap("r", 6, 8, False), 8]
    assert record(cursor, 3, 7) == []


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(0, 20))
def test_without_filling_every_id_is_shown_or_in_a_gap_once(numbers: list[int], last: int) -> None:
    cursor = entered(Begin.NOW, stand(last))
    at = last
    for event in record(cursor, *numbers):
        if isinstance(event, Gap):
            assert (event.after, event.filled) == (at, False)
            assert event.before > at + 1
            at = event.before - 1
        else:
            assert event == at + 1
            at = event
    assert at == max([last, *numbers])


# Filling


def test_a_gap_is_read_page_by_page_before_it_goes_on() -> None:
    cursor = filling()
    assert cursor.wants_page
    assert cursor.ask_page() == 2
    assert not cursor.wants_page
    assert page(cursor, 3, 4, more=True) == [3, 4]
    assert record(cursor, 11) == []
    assert cursor.position == Position("e", 4)
    assert cursor.ask_page() == 4
    assert page(cursor, 6, 9, 10, 11) == [6, 9, 10, 11]
    assert not cursor.wants_page
    assert record(cursor, 12) == [12]


def test_a_page_that_reaches_beyond_the_gap_ends_it_though_there_is_more() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 3, 10, 12, more=True) == [3, 10]
    assert not cursor.wants_page


def test_holes_in_a_page_prove_nothing() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 7) == [7, 10]


def test_a_gap_of_which_nothing_is_kept_is_passed() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor) == [10]
    assert cursor.position == Position("e", 10)


def test_what_a_page_repeats_is_shown_once() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 1, 2, 3, more=True) == [3]
    cursor.ask_page()
    assert page(cursor, 3, 4) == [4, 10]


def test_what_is_read_of_a_gap_that_came_later_is_not_old() -> None:
    cursor = filling()
    cursor.ask_page()
    events = list(cursor.page([message(3)], False))
    assert [event.old for event in events if isinstance(event, Recorded)] == [False, False]
    resumed = Cursor(Begin.NOW, fill=True, position=Position("e", 0))
    assert told(resumed.enter(stand(9, 1))) == [Gap("r", 0, 9, True)]
    resumed.ask_page()
    (event,) = resumed.page([message(8)], True)
    assert isinstance(event, Recorded)
    assert event.old


def test_a_page_that_was_not_asked_for_is_nothing() -> None:
    cursor = filling()
    assert page(cursor, 3, 4) == []
    assert page(entered(Begin.NOW, stand(2)), 3, 4) == []
    cursor.ask_page()
    assert page(cursor, 3, more=True) == [3]
    assert page(cursor, 4, 5) == []


def test_a_page_may_be_asked_for_again_later() -> None:
    cursor = filling()
    cursor.ask_page()
    assert told(cursor.no_page(later=True)) == []
    assert cursor.wants_page
    assert cursor.ask_page() == 2
    assert page(cursor, 3) == [3, 10]


def test_if_there_is_no_page_ever_the_rest_is_told_as_a_gap() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 3, more=True) == [3]
    cursor.ask_page()
    assert told(cursor.no_page(later=False)) == [Gap("r", 3, 10, False), 10]
    assert not cursor.wants_page
    assert record(cursor, 11) == [11]


def test_if_nothing_is_left_of_a_gap_it_is_not_told_again() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 9, more=True) == [9]
    cursor.ask_page()
    assert told(cursor.no_page(later=False)) == [10]


def test_an_error_without_a_gap_is_nothing() -> None:
    assert told(entered(Begin.NOW, stand(2)).no_page(later=False)) == []


def test_a_server_that_always_has_more_but_shows_nothing_is_not_asked_for_ever() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 1, 2, more=True) == [Gap("r", 2, 10, False), 10]
    assert not cursor.wants_page


def test_a_gap_is_read_again_from_where_it_was_after_a_loss() -> None:
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 3, 5, more=True) == [3, 5]
    cursor.lost()
    assert not cursor.wants_page
    assert cursor.position == Position("e", 5)
    assert told(cursor.enter(stand(12, 3))) == [Gap("r", 5, 10, True)]
    assert cursor.ask_page() == 5


# Held


def test_what_comes_twice_is_held_once() -> None:
    cursor = filling()
    assert record(cursor, 11, 10, 11, 2, 1) == []
    cursor.ask_page()
    assert page(cursor, 3) == [3, 10, 11]


def test_a_hole_in_what_was_held_is_a_gap_of_its_own() -> None:
    cursor = filling()
    assert record(cursor, 11, 20, 21, 30) == []
    cursor.ask_page()
    assert page(cursor, 3) == [3, 10, 11, Gap("r", 11, 20, True)]
    assert cursor.ask_page() == 11
    assert page(cursor, 15, 20) == [15, 20, 21, Gap("r", 21, 30, True)]
    assert record(cursor, 31) == []
    assert cursor.ask_page() == 21
    assert page(cursor) == [30, 31]
    assert not cursor.wants_page


def test_as_many_records_as_may_be_are_held() -> None:
    cursor = filling()
    assert record(cursor, *range(11, 10 + HELD_RECORDS)) == []
    cursor.ask_page()
    assert page(cursor) == list(range(10, 10 + HELD_RECORDS))


def test_if_more_records_come_all_are_read_from_the_history() -> None:
    cursor = filling()
    last = 10 + HELD_RECORDS
    assert record(cursor, *range(11, last + 1)) == [Gap("r", 2, last, True)]
    assert cursor.ask_page() == 2
    assert page(cursor, 3, 10, 11, more=True) == [3, 10, 11]
    assert record(cursor, last + 1) == []
    assert cursor.ask_page() == 11
    assert page(cursor, 12, last - 1, last) == [12, last - 1, last, last + 1]


def test_if_too_many_bytes_come_all_are_read_from_the_history() -> None:
    cursor = filling()
    assert record(cursor, 11, 12, size=HELD_BYTES // 2) == []
    assert record(cursor, 13, 14) == [Gap("r", 2, 13, True)]
    cursor.ask_page()
    assert page(cursor, 10, 11, 12) == [10, 11, 12, 13, 14]


def test_the_bytes_of_the_first_one_that_is_held_count_as_well() -> None:
    cursor = entered(Begin.NOW, stand(2), fill=True)
    assert record(cursor, 10, size=HELD_BYTES) == [Gap("r", 2, 10, True)]
    assert record(cursor, 11) == [Gap("r", 2, 11, True)]
    cursor.ask_page()
    assert page(cursor) == [11], "10 was dropped, and is in no page"


def test_the_last_page_proves_nothing_of_what_was_dropped_since_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HELD_RECORDS", 2)
    cursor = filling()
    cursor.ask_page()
    assert record(cursor, 11, 12) == [Gap("r", 2, 12, True)]
    assert page(cursor, 3) == [3], "10 and 11 were dropped when 12 came"
    assert cursor.wants_page
    assert cursor.ask_page() == 3
    assert page(cursor, 10, 11) == [10, 11, 12]


def test_what_is_dropped_and_in_no_history_is_told_as_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit, for one: the gap that was told first doesn't have it."""
    monkeypatch.setattr(module, "HELD_RECORDS", 2)
    cursor = filling()
    cursor.ask_page()
    assert page(cursor, 3, more=True) == [3]
    assert record(cursor, 11, 12, 13) == [Gap("r", 3, 12, True)]
    cursor.ask_page()
    assert page(cursor, 10) == [10, 12, 13]


def test_a_page_that_shows_all_that_was_dropped_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_RECORDS", 2)
    cursor = filling()
    cursor.ask_page()
    assert record(cursor, 11, 12) == [Gap("r", 2, 12, True)]
    assert page(cursor, 10, 11, 12) == [10, 11, 12]
    assert not cursor.wants_page


@given(
    st.data(), st.integers(2, 5), st.lists(st.booleans(), min_size=30, max_size=30), st.sampled_from(Begin)
)
def test_whatever_is_held_or_dropped_all_messages_are_shown_once_and_in_order(
    data: st.DataObject, held: int, are_messages: list[bool], begin: Begin
) -> None:
    """A log grows while its gap is read; what is asked for is answered later, or by an error at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_RECORDS", held)
        cursor = Cursor(begin, fill=True, position=Position("e", 0))
        shown = told(cursor.enter(stand(12, 2)))
        coming, asked, end, seen = iter(range(11, 31)), None, 12, 12
        while cursor.position != Position("e", 30):
            if cursor.wants_page:
                asked, seen = cursor.ask_page(), end
            if asked is not None and (end == 30 or data.draw(st.booleans())):
                if data.draw(st.sampled_from((False, False, True))):
                    shown += told(cursor.no_page(later=True))
                else:
                    read_up_to = data.draw(st.integers(seen, end))
                    found = [n for n in range(asked + 1, read_up_to + 1) if are_messages[n - 1]]
                    size = data.draw(st.integers(1, 4))
                    shown += page(cursor, *found[:size], more=len(found) > size)
                asked = None
            elif (number := next(coming, None)) is not None:
                end = max(end, number)
                shown += record(cursor, number)
        numbers = [each for each in shown if isinstance(each, int)]
        assert numbers == sorted(set(numbers))
        assert {n for n in range(1, 31) if are_messages[n - 1]} <= set(numbers)
        gaps = [each for each in shown if isinstance(each, Gap)]
        assert all(gap.filled for gap in gaps)
        told_as_missing = {n for gap in gaps for n in range(gap.after + 1, gap.before)}
        assert set(range(1, 31)) - set(numbers) <= told_as_missing
