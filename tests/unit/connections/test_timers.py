"""One task looks after all connections, each at the time that it asked for."""

import gc
import math

import pytest
import trio
import trio.testing

from chatroom.connections.timers import Timers

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Patient:
    """Wants to be looked after again and again, after the pauses in its list, and never after the last."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)
        self.seen: list[float] = []
        self.start = trio.current_time()

    def on_timer(self, now: float) -> float:
        self.seen.append(round(now - self.start, 6))
        return self.pauses.pop(0) if self.pauses else math.inf


async def test_each_is_looked_after_when_it_asked_to_be() -> None:
    keepalive = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        slow, quick, once = Patient(20, 20), Patient(1, 2, 3), Patient()
        for patient in (slow, quick, once):
            keepalive.add(patient)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert slow.seen == [0, 20, 40]
    assert quick.seen == [0, 1, 3, 6]
    assert once.seen == [0]


async def test_one_who_comes_later_with_less_patience_is_not_kept_waiting() -> None:
    keepalive = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        keepalive.add(Patient(20))
        await trio.sleep(5)
        late = Patient(1, 1)
        keepalive.add(late)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert late.seen == [0, 1, 2]


async def test_one_who_is_gone_is_not_looked_after() -> None:
    keepalive = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        gone, kept = Patient(10), Patient(10)
        for patient in (gone, kept):
            keepalive.add(patient)
        await trio.sleep(5)
        assert len(keepalive) == 2
        keepalive.remove(gone)
        keepalive.remove(gone)
        assert len(keepalive) == 1
        await trio.sleep(50)
        nursery.cancel_scope.cancel()
    assert (gone.seen, kept.seen) == ([0], [0, 10])


async def test_those_who_are_gone_are_forgotten_long_before_their_time() -> None:
    keepalive = Timers()
    kept = Patient(30)
    keepalive.add(kept)
    for _ in range(1000):
        patient = Patient(20)
        keepalive.add(patient)
        keepalive.remove(patient)
        del patient
    gc.collect()
    assert sum(isinstance(each, Patient) for each in gc.get_objects()) < 30
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        await trio.sleep(40)
        nursery.cancel_scope.cancel()
    assert kept.seen == [0, 30]


async def test_one_who_asks_to_come_again_at_once_is_seen_a_few_times_a_second_and_holds_up_nobody() -> None:
    """As a connection does that isn't read: a pause shorter than the clock can tell would never end."""
    keepalive = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        hasty, calm = Patient(*[1e-12] * 100_000), Patient(10)
        for patient in (hasty, calm):
            keepalive.add(patient)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(hasty.seen) < 500
    assert calm.seen == [0, 10]


async def test_who_is_added_again_has_its_plan_made_anew_and_is_seen_once_at_a_time() -> None:
    keepalive = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        later, earlier, never = Patient(10, 30, 30), Patient(30, 10, 30), Patient(10)
        for patient in (later, earlier, never):
            keepalive.add(patient)
        await trio.sleep(5)
        for patient in (later, earlier, never):
            keepalive.add(patient)
        assert len(keepalive) == 2
        await trio.sleep(61)
        nursery.cancel_scope.cancel()
    assert later.seen == [0, 5, 35, 65]
    assert earlier.seen == [0, 5, 15, 45]
    assert never.seen == [0, 5]


async def test_plans_that_were_made_anew_are_forgotten() -> None:
    keepalive = Timers()
    often = Patient(*[30] * 1001)
    for _ in range(1000):
        keepalive.add(often)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        assert len(keepalive._due) < 20
        await trio.sleep(31)
        nursery.cancel_scope.cancel()
    assert often.seen == [0] * 1000 + [30]


@pytest.mark.parametrize(("jump", "seen"), [(0.0, 100.0), (60.0, 40.0), (-20.0, 120.0), (1000.0, 10.5)])
async def test_by_a_clock_that_may_be_set_each_is_seen_at_its_time_after_all(
    jump: float, seen: float
) -> None:
    """Ten seconds after the start somebody sets it; who waits for a time of that day hears of it soon."""
    jumped = 0.0
    found: list[float] = []

    class AtHundred:
        def on_timer(self, now: float) -> float:
            if now < 100:
                return 100 - now
            found.append(trio.current_time() - start)
            return math.inf

    start = trio.current_time()
    keepalive = Timers(lambda: trio.current_time() - start + jumped, longest=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        keepalive.add(AtHundred())
        await trio.sleep(10.1)
        jumped = jump
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert found == [pytest.approx(seen, abs=0.06)]
