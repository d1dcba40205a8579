"""Where the line of what is new stands."""

import pytest

from chatroom.client.cursor import Position
from chatroom.client.unread import IDLE, Unread


def live(unread: Unread, number: int, now: float, *, own: bool = False) -> bool:
    return unread.is_first(number, own=own, old=False, now=now)


def replayed(unread: Unread, number: int, *, own: bool = False) -> bool:
    return unread.is_first(number, own=own, old=True, now=0)


def test_nothing_is_new_at_the_first_visit() -> None:
    unread = Unread(0)
    unread.entered(None, "e", 9)
    assert not any(replayed(unread, number) for number in range(1, 51))


def test_the_line_stands_above_the_first_record_behind_the_last_visit() -> None:
    unread = Unread(0)
    unread.entered(Position("e", 3), "e", 9)
    assert [replayed(unread, number) for number in (2, 3, 4, 5)] == [False, False, True, False]


def test_what_one_has_said_oneself_is_not_new() -> None:
    unread = Unread(0)
    unread.entered(Position("e", 3), "e", 9)
    assert [replayed(unread, 4, own=True), replayed(unread, 5)] == [False, True]


@pytest.mark.parametrize("seen", [Position("other", 3), Position("e", 10)])
def test_another_history_has_nothing_that_was_seen(seen: Position) -> None:
    unread = Unread(0)
    unread.entered(seen, "e", 9)
    assert [replayed(unread, 1), replayed(unread, 2)] == [True, False]


def test_a_line_that_wasnt_needed_at_the_entry_doesnt_come_later() -> None:
    unread = Unread(0)
    unread.entered(Position("e", 3), "e", 9)
    assert not live(unread, 4, 1)
    assert not replayed(unread, 5)


def test_who_looks_away_finds_the_line_above_the_first_record_since() -> None:
    unread = Unread(0)
    unread.looking(False, 1)
    assert [live(unread, 1, 2, own=True), live(unread, 2, 2), live(unread, 3, 3)] == [False, True, False]
    unread.looking(True, 4)
    assert not live(unread, 4, 4)
    unread.looking(False, 5)
    assert live(unread, 5, 6)


def test_who_looks_at_the_terminal_is_there_without_typing() -> None:
    unread = Unread(0)
    unread.looking(True, 1)
    assert not live(unread, 1, 10 * IDLE)


def test_without_a_terminal_that_tells_who_types_nothing_is_away() -> None:
    unread = Unread(0)
    assert not live(unread, 1, IDLE - 1)
    assert [live(unread, 2, IDLE), live(unread, 3, IDLE)] == [True, False]
    unread.pressed(IDLE + 1)
    assert not live(unread, 4, IDLE + 2)
    assert live(unread, 5, 2 * IDLE + 1)


def test_one_time_away_has_one_line() -> None:
    unread = Unread(0)
    unread.entered(Position("e", 1), "e", 9)
    assert replayed(unread, 2)
    assert not live(unread, 3, 2 * IDLE)
