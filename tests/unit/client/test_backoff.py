"""The pauses of a client: how long they are at least and at most, and when they begin anew."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.backoff import BOUND, LASTED, MOST_ASKED, Backoff

CHANCES = st.floats(0, 1)


def test_the_bound_doubles_with_each_failure_up_to_the_longest_pause() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.pause() for _ in range(8)] == [1, 2, 4, 8, 16, BOUND, BOUND, BOUND]


@given(st.lists(CHANCES, min_size=1, max_size=1100))
def test_a_pause_is_anything_up_to_its_bound_however_many_there_were(chances: list[float]) -> None:
    found = iter(chances)
    backoff = Backoff(lambda: next(found))
    for number, chance in enumerate(chances):
        assert backoff.pause() == chance * min(BOUND, 2.0 ** min(number, 10))


def test_a_long_row_of_failures_stays_at_the_longest_pause() -> None:
    backoff = Backoff(lambda: 1.0)
    assert {backoff.pause() for _ in range(100_000)} == {1, 2, 4, 8, 16, BOUND}


@given(st.floats(0, MOST_ASKED), CHANCES)
def test_what_the_server_asks_for_is_waited_for_before_the_pause_begins(asked: float, chance: float) -> None:
    assert Backoff(lambda: chance).pause(asked) == asked + chance


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(MOST_ASKED + 1, MOST_ASKED), (1e300, MOST_ASKED), (float("inf"), MOST_ASKED), (-5, 0)],
)
def test_a_mistake_of_a_proxy_is_not_waited_for(asked: float, waited: float) -> None:
    assert Backoff(lambda: 0.0).pause(asked) == waited


def test_the_bound_doubles_behind_what_the_server_asks_for_as_well() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.pause(7) for _ in range(3)] == [8, 9, 11]


@pytest.mark.parametrize(
    ("seconds", "useful", "pause"),
    [(0, False, 4), (LASTED - 0.001, False, 4), (LASTED, False, 1), (1e6, False, 1), (0, True, 1)],
)
def test_the_pauses_begin_anew_only_after_a_good_connection(
    seconds: float, useful: bool, pause: float
) -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.pause()
    backoff.pause()
    backoff.ended(seconds, useful=useful)
    assert backoff.pause() == pause


def test_chance_is_asked_once_for_each_pause() -> None:
    numbers = itertools.count()
    backoff = Backoff(lambda: next(numbers) / 100)
    assert [backoff.pause() for _ in range(3)] == [0, 0.02, 0.08]
