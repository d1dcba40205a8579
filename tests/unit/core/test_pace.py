"""Rate limiters delay exactly, windows count exactly, and names once seen are forgotten."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.core.pace import RateLimiter, RateLimiters, Sampler, Window

TIMES = st.lists(st.floats(0, 30, allow_nan=False), max_size=60).map(sorted)


@pytest.mark.parametrize("start", [0.0, -5.0, 123.456, 1e6, 1e9])
def test_a_burst_passes_at_once_and_the_rest_at_the_rate(start: float) -> None:
    limiter = RateLimiter(5, 20)
    assert [limiter.reserve(start) for _ in range(20)] == [0.0] * 20
    waits = [limiter.reserve(start) for _ in range(10)]
    assert waits == pytest.approx([0.2 * n for n in range(1, 11)], abs=1e-5)


def test_after_waiting_as_told_the_next_waits_one_interval() -> None:
    limiter = RateLimiter(5, 1)
    now = 100.0
    assert limiter.reserve(now) == 0.0
    for _ in range(1000):
        wait = limiter.reserve(now)
        assert wait == pytest.approx(0.2)
        now += wait


def test_asking_again_before_the_time_waits_longer() -> None:
    limiter = RateLimiter(1, 1)
    assert [limiter.reserve(0) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]


def test_it_fills_up_again_but_not_beyond_the_burst() -> None:
    limiter = RateLimiter(10, 3)
    for _ in range(3):
        limiter.reserve(0)
    assert limiter.reserve(0.1) == 0.0
    assert limiter.reserve(0.1) == pytest.approx(0.1)
    assert [limiter.reserve(1000) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    limiter = RateLimiter(1, 1)
    limiter.reserve(100)
    assert limiter.reserve(50) == pytest.approx(51)


def test_what_weighs_more_than_it_was_taken_for_is_waited_for_by_the_next() -> None:
    limiter = RateLimiter(10, 10)
    assert limiter.reserve(0) == 0.0
    limiter.charge(14, 0)
    assert limiter.reserve(0) == pytest.approx(0.6)
    limiter.charge(0.5, 100)
    assert [limiter.reserve(100) for _ in range(11)] == pytest.approx([0.0] * 9 + [0.05, 0.15])


def test_idle_means_as_good_as_new() -> None:
    limiter = RateLimiter(5, 20)
    assert limiter.idle(0)
    limiter.reserve(0)
    assert not limiter.idle(0.19)
    assert limiter.idle(0.2)
    for _ in range(20):
        limiter.reserve(1)
    assert not limiter.idle(4.9)
    assert limiter.idle(5.0001)


def test_rate_zero_never_waits() -> None:
    limiter = RateLimiter(0, 1)
    assert {limiter.reserve(0) for _ in range(1000)} == {0.0}
    assert limiter.idle(0)


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (math.nan, 1), (1, 0), (0, 0)])
def test_senseless_buckets_are_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="a rate limiter needs"):
        RateLimiter(rate, burst)


@settings(deadline=None)
@given(TIMES, st.sampled_from([0.5, 1, 5, 200]), st.integers(1, 20))
def test_no_stretch_of_time_gets_more_than_burst_and_rate(
    times: list[float], rate: float, burst: int
) -> None:
    limiter = RateLimiter(rate, burst)
    turns = [now + limiter.reserve(now) for now in times]
    assert all(later - turn > -1e-5 for turn, later in itertools.pairwise(turns))
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            assert last - first + 1 <= burst + (turns[last] - turns[first]) * rate + 1e-3


@settings(deadline=None)
@given(TIMES, st.sampled_from([0.5, 1, 5]), st.integers(1, 5))
def test_waits_are_those_of_a_plain_token_bucket(times: list[float], rate: float, burst: int) -> None:
    limiter, tokens, before = RateLimiter(rate, burst), float(burst), 0.0
    for now in times:
        tokens = min(burst, tokens + (now - before) * rate) - 1
        before = now
        assert limiter.reserve(now) == pytest.approx(max(0.0, -tokens / rate), abs=1e-4)


def test_a_window_says_when_one_is_over_the_limit() -> None:
    window = Window(10, 60)
    assert [window.add(now) for now in range(10)] == [False] * 10
    assert window.add(10)
    assert window.add(59.9)


def test_a_window_slides() -> None:
    window = Window(2, 60)
    assert [window.add(now) for now in (0, 30, 60, 89.9, 90, 149.9, 150, 300)] == [
        *[False, False, False],  # at 60 the first is 60 s ago: gone
        *[True, True],
        *[False, False, False],
    ]


def test_a_window_says_how_long_until_there_is_room() -> None:
    window = Window(2, 60)
    assert window.wait(0) == 0.0
    window.add(0)
    assert window.wait(1) == 0.0
    window.add(10)
    assert window.wait(10) == 50.0
    window.add(20)
    assert window.wait(20) == 50.0
    assert window.wait(70) == 0.0
    assert not window.add(70)


def test_a_window_without_room_for_any() -> None:
    window = Window(0, 60)
    assert window.wait(0) == 60
    assert window.add(0)
    assert window.wait(100) == 60


def test_a_window_keeps_no_more_than_it_must() -> None:
    window = Window(10, 60)
    for number in range(10_000):
        window.add(number / 1000)
        assert len(window._times) <= 11
    assert not window.idle(60)
    assert window.idle(70)
    assert not window._times


@settings(deadline=None)
@given(TIMES, st.integers(0, 5), st.sampled_from([0.5, 1.0, 10.0]))
def test_a_window_counts_what_a_full_list_would(times: list[float], limit: int, seconds: float) -> None:
    window = Window(limit, seconds)
    for index, now in enumerate(times):
        count = sum(time > now - seconds for time in times[: index + 1])
        assert window.add(now) == (count > limit)
        if limit:
            later = now + window.wait(now)
            left = sum(time > later - seconds + 1e-9 for time in times[: index + 1])
            assert left < limit


def test_a_store_keeps_users_apart() -> None:
    store = RateLimiters(1, 1)
    assert store.reserve("alice", 0) == 0.0
    assert store.reserve("alice", 0) == 1.0
    assert store.reserve("bob", 0) == 0.0
    assert store.reserve("alice", 0) == 2.0
    assert len(store) == 2


def test_a_store_forgets_only_what_is_full() -> None:
    store = RateLimiters(1, 1)
    for _ in range(100):
        store.reserve("flooder", 0)
    for number in range(1, 50):
        store.reserve(f"user{number}", number)
    assert store.reserve("flooder", 50) == pytest.approx(50)


def test_a_million_names_once_seen_do_not_stay() -> None:
    store, rate = RateLimiters(5, 20), 5
    most = 0
    for number in range(100_000):
        store.reserve(f"user{number}", number / 1000)
        most = max(most, len(store))
    assert most <= 3 * 1000 / rate, "twice what is filling up at a time, and a little"
    for _ in range(most):
        store.reserve("last", 10_000)
    assert len(store) == 1


def test_a_store_without_a_rate_remembers_nobody() -> None:
    store = RateLimiters(0, 20)
    assert store.reserve("alice", 0) == 0.0
    assert len(store) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 2)), max_size=80))
def test_forgetting_changes_no_answer(steps: list[tuple[str, float]]) -> None:
    store, kept, now = RateLimiters(2, 3), {key: RateLimiter(2, 3) for key in "abcdefgh"}, 0.0
    for key, pause in steps:
        now += pause
        assert store.reserve(key, now) == pytest.approx(kept[key].reserve(now), abs=1e-5)


# A sampler


def test_the_first_of_a_second_pass_and_the_others_are_counted_by_key() -> None:
    sampler = Sampler(3)
    assert [sampler.passes(key, 10.0) for key in "aabbba"] == [True, True, True, False, False, False]
    assert sampler.waiting
    assert sampler.wait(10.4) == pytest.approx(0.6)
    assert sampler.wait(11.5) == 0.0
    assert sampler.left_out() == {"b": 2, "a": 1}
    assert sampler.left_out() == {}
    assert not sampler.waiting
    assert sampler.wait(10.4) == math.inf


def test_what_was_left_out_is_due_on_time_however_many_come_meanwhile() -> None:
    sampler = Sampler(1)
    seen = [sampler.passes("a", number / 10) for number in range(100)]
    assert sampler.wait(1.0) == 0.0
    assert seen.count(True) + sampler.left_out()["a"] == 100
    assert seen.count(True) == 10


def test_a_second_begins_with_its_first_event() -> None:
    sampler = Sampler(2)
    assert [sampler.passes("a", now) for now in (0.9, 1.0, 1.1, 1.89, 1.9)] == [
        True,
        True,
        False,
        False,
        True,
    ]


# Taking a place only if it is free


@given(
    st.floats(0.1, 100),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 2), st.booleans(), st.floats(0, 3)), max_size=40),
)
def test_a_place_is_taken_exactly_where_nobody_would_wait(
    rate: float, burst: int, steps: list[tuple[float, bool, float]]
) -> None:
    taking, reserving = RateLimiter(rate, burst), RateLimiter(rate, burst)
    now = 0.0
    for pause, heavy, weight in steps:
        now += pause
        wait = taking.take(now)
        assert wait == 0.0 or wait == taking.take(now)
        if wait == 0.0:
            assert reserving.reserve(now) == 0.0
            if heavy:
                taking.charge(weight, now)
                reserving.charge(weight, now)
        else:
            assert taking.take(now + wait + 1e-5) == 0.0
            assert reserving.reserve(now + wait + 1e-5) == 0.0
            now += wait + 1e-5


def test_keys_take_and_are_charged_apart() -> None:
    limiters = RateLimiters(1.0, 2)
    assert [limiters.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert limiters.take("b", 0.0) == 0.0
    limiters.charge("b", 5.0, 0.0)
    assert limiters.take("b", 0.0) == 5.0
    free = RateLimiters(0, 1)
    free.charge("a", 9.0, 0.0)
    assert [free.take("a", 0.0), len(free)] == [0.0, 0]
