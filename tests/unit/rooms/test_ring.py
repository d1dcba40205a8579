"""Rings share one budget, forget from the old end, and share the joins that many readers ask for."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.rooms.ring import (
    END_COST,
    FRAME_COST,
    MAX_FRAMES,
    SLICE_COST,
    SLICES,
    Ring,
    RingBudget,
    Slice,
    join,
)

PLENTY = 1 << 30
FRAME = 3 + FRAME_COST
"""What a frame of three bytes takes in a ring."""


def sliced(frames: int, size: int = 3) -> int:
    """What a slice of so many frames takes."""
    return frames * (size + END_COST) + SLICE_COST


def filled(count: int, *, last_id: int = 0, budget: RingBudget | None = None, size: int = 3) -> Ring:
    """A ring with frames that say their ids."""
    ring = Ring(budget or RingBudget(PLENTY), last_id)
    for number in range(last_id + 1, last_id + count + 1):
        ring.append(frame(number, size))
    return ring


def frame(number: int, size: int = 3) -> bytes:
    return str(number).rjust(size, "0").encode()


def test_an_empty_ring_begins_behind_its_last_id() -> None:
    ring = Ring(RingBudget(PLENTY), 41)
    assert (len(ring), ring.first_id, ring.last_id) == (0, 42, 41)
    assert not ring.forget_oldest()
    assert ring.slice(40, 41, 100) is None


def test_a_slice_holds_the_frames_after_an_id_up_to_another() -> None:
    ring = filled(5, last_id=10)
    assert ring.slice(11, 14, 100) == Slice(b"012013014", (3, 6, 9), 14)
    assert ring.slice(10, 15, 100) == Slice(b"011012013014015", (3, 6, 9, 12, 15), 15)
    assert ring.slice(9, 15, 100) is None


@pytest.mark.parametrize(
    ("most", "count"), [(0, 1), (2, 1), (3, 1), (5, 1), (6, 2), (11, 3), (12, 4), (99, 4)]
)
def test_a_slice_is_about_as_big_as_asked_and_one_frame_at_least(most: int, count: int) -> None:
    ring = filled(4)
    found = ring.slice(0, 4, most)
    assert found == Slice(b"001002003004"[: 3 * count], (3, 6, 9, 12)[:count], count)


def test_nothing_joined_is_nothing() -> None:
    assert join([], 7, 100) == Slice(b"", (), 7)


def test_readers_at_the_same_place_share_one_join() -> None:
    ring = filled(9)
    first = ring.slice(2, 8, 100)
    others = [ring.slice(after, 8, 100) for after in range(3, 8)]
    ring.append(frame(10))  # what an id stands for never changes
    assert ring.slice(2, 8, 100) is first
    assert [ring.slice(after, 8, 100) for after in range(3, 8)] == others


def test_slices_are_kept_within_their_share_of_the_budget_the_newest_longest() -> None:
    budget = RingBudget((sliced(8) + sliced(2)) * SLICES)
    ring = filled(9, budget=budget)
    first = ring.slice(0, 8, 100)
    second = ring.slice(7, 9, 100)
    assert budget.sliced == sliced(8) + sliced(2)
    third = ring.slice(8, 9, 100)
    assert budget.sliced == sliced(2) + sliced(1)
    assert ring.slice(7, 9, 100) is second
    assert ring.slice(8, 9, 100) is third
    assert ring.slice(0, 8, 100) == first
    assert ring.slice(0, 8, 100) is not first


def test_a_slice_beyond_the_share_is_not_kept() -> None:
    budget = RingBudget((sliced(3) - 1) * SLICES)
    ring = filled(3, budget=budget)
    assert ring.slice(0, 3, 100) == ring.slice(0, 3, 100)
    assert ring.slice(0, 3, 100) is not ring.slice(0, 3, 100)
    assert budget.sliced == 0


def test_what_was_read_from_the_log_is_shared_as_well() -> None:
    ring = Ring(RingBudget(PLENTY), 9)
    assert ring.slice(2, 5, 100) is None
    piece = ring.remember_read([frame(3), frame(4), frame(5)], 2)
    assert ring.slice(2, 5, 100) is piece
    assert piece == Slice(b"003004005", (3, 6, 9), 5)


def test_what_was_read_from_the_log_serves_every_place_within_it() -> None:
    ring = Ring(RingBudget(PLENTY), 99)
    ring.remember_read([frame(number) for number in range(11, 21)], 10)
    ring.remember_read([frame(number) for number in range(41, 43)], 40)
    assert ring.slice(9, 99, 100) is None
    for after in range(10, 20):
        for upto in (after + 1, 20, 99):
            expected = [frame(number) for number in range(after + 1, min(upto, 20) + 1)]
            assert ring.slice(after, upto, 1) == join(expected, after)
    assert ring.slice(20, 99, 100) is None
    assert ring.slice(39, 99, 100) is None
    assert ring.slice(41, 99, 100) == join([frame(42)], 41)


def test_what_was_read_goes_with_the_oldest() -> None:
    budget = RingBudget(3 * sliced(2) * SLICES)
    rings = [Ring(budget, 99), Ring(budget, 99)]
    for number in range(0, 20, 2):
        for ring in rings:
            ring.remember_read([frame(number + 1), frame(number + 2)], number)
            assert budget.sliced <= 3 * sliced(2)
    kept = [[after for after in range(20) if ring.slice(after, 99, 100)] for ring in rings]
    assert kept == [[18, 19], [16, 17, 18, 19]]


def test_what_was_read_and_is_too_large_is_given_and_not_kept() -> None:
    budget = RingBudget(sliced(2) * SLICES)
    ring = Ring(budget, 9)
    assert ring.remember_read([frame(1), frame(2), frame(3)], 0).last_id == 3
    assert (ring.slice(0, 9, 100), budget.sliced) == (None, 0)


@pytest.mark.parametrize(
    ("size", "count"), [(20, 1), (100, 1), (100, 30), (100, 600), (4100, 15), (20, 3000)]
)
def test_what_is_counted_of_slices_is_what_they_hold(size: int, count: int) -> None:
    budget = RingBudget(PLENTY)
    ring = Ring(budget, 10**6)
    frames = [bytes(size)] * count
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100):
            ring.remember_read(frames, 1000 + number * count)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.6 * budget.sliced < held < budget.sliced


@pytest.mark.parametrize("size", [60, 100, 4100])
def test_what_is_counted_of_frames_is_what_they_hold(size: int) -> None:
    budget = RingBudget(PLENTY)
    rings = [Ring(budget, 0) for _ in range(10)]
    tracemalloc.start()
    try:
        for number in range(500):
            for ring in rings:
                ring.append(bytes(size + number % 2))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.85 * budget.used < held < budget.used


def test_a_ring_holds_so_many_frames_and_no_more() -> None:
    ring = filled(MAX_FRAMES + 1500, size=4)
    assert len(ring) == MAX_FRAMES
    assert (ring.first_id, ring.last_id) == (1501, MAX_FRAMES + 1500)
    assert ring.slice(1500, 1502, 100) == Slice(b"15011502", (4, 8), 1502)
    assert ring.slice(1499, 1502, 100) is None


def test_what_is_forgotten_is_given_back_to_the_budget() -> None:
    budget = RingBudget(PLENTY)
    ring = filled(10, budget=budget)
    assert budget.used == 10 * FRAME
    assert ring.forget_oldest()
    assert budget.used == 9 * FRAME
    ring.clear()
    assert (budget.used, len(ring), ring.first_id) == (0, 0, 11)


def test_past_the_budget_the_ring_written_longest_ago_forgets_first() -> None:
    budget = RingBudget(10 * FRAME)
    old, new = filled(5, budget=budget), filled(5, budget=budget)
    new.append(frame(6))
    assert (len(old), len(new)) == (4, 6)
    old.append(frame(6))  # now `new` is the stalest
    assert (len(old), len(new)) == (5, 5)
    for number in range(7, 20):
        old.append(frame(number))
    assert (len(old), len(new)) == (10, 0)
    assert budget.used == 10 * FRAME


def test_a_ring_that_was_emptied_by_others_can_be_written_again() -> None:
    budget = RingBudget(3 * FRAME)
    old, new = filled(3, budget=budget), filled(3, budget=budget)
    assert (len(old), len(new)) == (0, 3)
    old.append(frame(4))
    assert (len(old), len(new)) == (1, 2)
    assert old.slice(3, 4, 100) == Slice(b"004", (3,), 4)


@pytest.mark.parametrize("total", [0, FRAME - 1])
def test_a_frame_beyond_the_whole_budget_is_forgotten_at_once(total: int) -> None:
    budget = RingBudget(total)
    ring = filled(3, budget=budget)
    assert (len(ring), ring.last_id, budget.used) == (0, 3, 0)
    assert ring.slice(2, 3, 100) is None


def test_a_closed_ring_holds_nothing_and_is_asked_for_nothing() -> None:
    budget = RingBudget(10 * FRAME)
    gone, kept = filled(5, budget=budget), filled(5, budget=budget)
    budget.close(gone)
    assert budget.used == 5 * FRAME
    for number in range(6, 11):
        kept.append(frame(number))
    assert (len(kept), budget.used) == (10, 10 * FRAME)
    budget.close(Ring(budget, 0))  # one that was never written


@given(
    st.integers(0, 20 * FRAME),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("aaaaaafcs"), st.integers(0, 12), st.integers(0, 12)),
        max_size=80,
    ),
)
def test_whatever_is_done_a_slice_is_what_was_appended(
    total: int, script: list[tuple[int, str, int, int]]
) -> None:
    budget = RingBudget(total)
    rings = [Ring(budget, start) for start in (0, 5, 100)]
    told: list[list[bytes]] = [[], [], []]
    for which, operation, one, two in script:
        ring = rings[which]
        match operation:
            case "a":
                told[which].append(bytes([65 + one]) * two)
                ring.append(told[which][-1])
            case "f":
                assert ring.forget_oldest() == (ring.first_id <= ring.last_id) or not len(ring)
            case "c":
                ring.clear()
            case _:
                check_slice(ring, told[which], ring.last_id - min(one, len(told[which])), two)
        assert budget.used <= total
        assert budget.used == sum(held(each, frames) for each, frames in zip(rings, told, strict=True))


def held(ring: Ring, told: list[bytes]) -> int:
    return sum(len(each) + FRAME_COST for each in told[len(told) - len(ring) :]) if len(ring) else 0


def check_slice(ring: Ring, told: list[bytes], after: int, most: int) -> None:
    found = ring.slice(after, ring.last_id, most)
    if found is None:
        assert after < ring.first_id - 1
        return
    missing = ring.last_id - after
    expected = told[len(told) - missing :] if missing else []
    count = found.last_id - after
    assert found.data == b"".join(expected[:count])
    assert len(found.ends) == count
    assert count >= min(1, missing)
    assert count <= 1 or len(found.data) <= most
    assert count == missing or len(found.data) + len(expected[count]) > most


# What isn't so any more


def test_a_frame_that_was_forgotten_is_a_hole_and_what_stands_around_it_is_still_given() -> None:
    budget = RingBudget(PLENTY)
    ring = filled(6, last_id=10, budget=budget)
    whole = ring.slice(10, 16, 100)
    assert whole is not None
    ring.forget(13)
    assert ring.slice(10, 16, 100) == Slice(b"011012", (3, 6), 12)
    assert ring.slice(12, 16, 100) is None
    assert ring.slice(13, 16, 100) == Slice(b"014015016", (3, 6, 9), 16)
    ring.forget(13)
    ring.forget(14)
    assert ring.slice(13, 16, 100) is None
    assert ring.slice(14, 16, 100) == Slice(b"015016", (3, 6), 16)
    while ring.forget_oldest():
        pass
    assert budget.used == 0
    ring.append(b"abc")
    assert ring.slice(16, 17, 100) == Slice(b"abc", (3,), 17)


def test_slices_with_a_forgotten_frame_go_and_others_stay() -> None:
    budget = RingBudget(PLENTY)
    ring, other = filled(6, budget=budget), filled(6, budget=budget)
    for each in (ring, other):
        each.slice(0, 3, 100)
        each.slice(3, 6, 100)
    kept = budget.sliced
    ring.forget(2)
    assert budget.sliced == kept - sliced(3)
    ring.forget(99)
    assert ring.slice(0, 3, 100) == Slice(b"001", (3,), 1)


def test_a_slice_that_was_read_from_the_log_goes_too() -> None:
    ring = Ring(RingBudget(PLENTY), 100)
    ring.remember_read([frame(number) for number in range(11, 15)], 10)
    assert ring.slice(12, 14, 100) is not None
    ring.forget(14)
    assert ring.slice(12, 14, 100) is None
    ring.remember_read([frame(13), b"new"], 12)
    assert ring.slice(12, 14, 100) == Slice(b"013new", (3, 6), 14)
