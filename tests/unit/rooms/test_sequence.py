"""A sequence gives messages out in the order of their ids, whatever they come like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.messages import Message
from chatroom.rooms.sequence import WINDOW, Sequence


def message(number: int) -> Message:
    return Message(number, 1, "alice", str(number), None)


def receive(sequence: Sequence, *numbers: int) -> list[int]:
    return [each.id for number in numbers for each in sequence.receive(message(number))]


@given(st.lists(st.integers(1, 30)), st.integers(0, 10))
def test_what_comes_out_is_dense_whatever_comes_in(coming: list[int], head: int) -> None:
    sequence = Sequence(head)
    assert receive(sequence, *coming) == list(range(head + 1, sequence.head + 1))
    missing = set(range(head + 1, 40)) - set(coming)
    assert sequence.head == min(missing) - 1
    assert sequence.tip == max([head, *coming])
    gap = sequence.gap
    assert (gap is None) == (sequence.tip == sequence.head)
    if gap is not None:
        after, upto = gap
        assert after == sequence.head
        assert set(range(after + 1, upto + 1)) <= missing
        assert upto + 1 in coming or upto == sequence.tip


@given(st.permutations(range(1, 20)), st.integers(1, 19))
def test_filling_each_gap_that_is_named_brings_everything(order: list[int], known: int) -> None:
    sequence = Sequence(0)
    receive(sequence, *order[:known])
    sequence.expect(19)
    while (gap := sequence.gap) is not None:
        after, upto = gap
        assert receive(sequence, *range(after + 1, upto + 1))
    assert sequence.head == 19


def test_what_was_shown_is_not_given_out_again() -> None:
    sequence = Sequence(5)
    assert receive(sequence, 1, 5, 6, 6, 5) == [6]


def test_of_what_is_far_ahead_only_the_number_is_kept() -> None:
    sequence = Sequence(0)
    assert receive(sequence, WINDOW + 1, WINDOW) == []
    assert sequence.gap == (0, WINDOW - 1)
    assert receive(sequence, *range(1, WINDOW)) == list(range(1, WINDOW + 1))
    assert sequence.gap == (WINDOW, WINDOW + 1)


@pytest.mark.parametrize("last_id", [0, 3])
def test_what_is_expected_behind_the_head_is_nothing_new(last_id: int) -> None:
    sequence = Sequence(3)
    sequence.expect(last_id)
    assert sequence.gap is None


def test_what_the_log_has_not_is_no_longer_expected() -> None:
    sequence = Sequence(3)
    assert receive(sequence, 5) == []
    sequence.expect(9)
    sequence.give_up(5)  # what has been told meanwhile may be newer
    assert sequence.gap == (3, 4)
    sequence.give_up(9)
    assert sequence.gap is None
    assert receive(sequence, 4, 5) == [4, 5]
