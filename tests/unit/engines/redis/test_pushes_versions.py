"""The order of a room's presence."""

from hypothesis import given
from hypothesis import strategies as st

from chatroom.engines.redis.pushes import MOST_HELD, Presence, Versions


def push(version: int, epoch: str = "e") -> Presence:
    return Presence("n", epoch, version, 0, [])


def numbers(pushes: list[Presence]) -> list[int]:
    return [each.version for each in pushes]


@given(st.lists(st.integers(1, 8), max_size=40))
def test_whatever_the_order_each_is_given_once_and_in_its_place(coming: list[int]) -> None:
    versions = Versions("e", 0)
    given_out = [number for version in coming for number in numbers(versions.add(push(version)))]
    assert given_out == list(range(1, len(given_out) + 1))
    assert set(given_out) <= set(coming)
    assert versions.gap == (max(coming, default=0) > len(given_out))


def test_what_is_known_to_be_missing_is_a_gap() -> None:
    versions = Versions("e", 3)
    versions.expect(3)
    assert not versions.gap
    versions.expect(5)
    assert versions.gap
    assert numbers(versions.add(push(4))) == [4]
    assert versions.gap
    assert numbers(versions.add(push(5))) == [5]
    assert not versions.gap


def test_a_whole_that_was_read_ends_a_gap_and_gives_what_lies_behind_it() -> None:
    versions = Versions("e", 3)
    for version in (6, 8, 9, 5):
        assert versions.add(push(version)) == []
    assert numbers(versions.reset("e", 7)) == [8, 9]
    assert not versions.gap
    assert versions.known == 9


def test_a_whole_of_another_epoch_starts_anew() -> None:
    versions = Versions("e", 3)
    versions.add(push(5))
    assert versions.add(push(1, "f")) == []
    assert versions.reset("f", 0) == []
    assert numbers(versions.add(push(1, "f"))) == [1]


def test_what_is_held_is_bounded() -> None:
    versions = Versions("e", 0)
    for version in range(2, MOST_HELD + 100):
        versions.add(push(version))
    assert numbers(versions.add(push(1))) == list(range(1, MOST_HELD + 2))
    assert versions.gap
