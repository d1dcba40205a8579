"""One task looks after all connections, each at the time that it asked for."""

import gc
import math

import pytest
import trio
import trio.testing

from chatroom.tasks.tender import Tender

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Patient:
    """Wants to be looked after again and again, after the pauses in its list, and never after the last."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)
        self.seen: list[float] = []
        self.start = trio.current_time()

    def tend(self, now: float) -> float:
        self.seen.append(round(now - self.start, 6))
        return self.pauses.pop(0) if self.pauses else math.inf


async def test_each_is_looked_after_when_it_asked_to_be() -> None:
    tender = Tender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tender.run)
        slow, quick, once = Patient(20, 20), Patient(1, 2, 3), Patient()
        for patient in (slow, quick, once):
            tender.add(patient, trio.current_time())
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert slow.seen == [0, 20, 40]
    assert quick.seen == [0, 1, 3, 6]
    assert once.seen == [0]


async def test_one_who_comes_later_with_less_patience_is_not_kept_waiting() -> None:
    tender = Tender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tender.run)
        tender.add(Patient(20), trio.current_time())
        await trio.sleep(5)
        late = Patient(1, 1)
        tender.add(late, trio.current_time())
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert late.seen == [0, 1, 2]


async def test_one_who_is_gone_is_not_looked_after() -> None:
    tender = Tender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tender.run)
        gone, kept = Patient(10), Patient(10)
        for patient in (gone, kept):
            tender.add(patient, trio.current_time())
        await trio.sleep(5)
        assert len(tender) == 2
        tender.remove(gone)
        tender.remove(gone)
        assert len(tender) == 1
        await trio.sleep(50)
        nursery.cancel_scope.cancel()
    assert (gone.seen, kept.seen) == ([0], [0, 10])


async def test_those_who_are_gone_are_forgotten_long_before_their_time() -> None:
    tender = Tender()
    kept = Patient(30)
    tender.add(kept, trio.current_time())
    for _ in range(1000):
        patient = Patient(20)
        tender.add(patient, trio.current_time())
        tender.remove(patient)
        del patient
    gc.collect()
    assert sum(isinstance(each, Patient) for each in gc.get_objects()) < 30
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tender.run)
        await trio.sleep(40)
        nursery.cancel_scope.cancel()
    assert kept.seen == [0, 30]


async def test_one_who_asks_to_come_again_at_once_is_seen_a_few_times_a_second_and_holds_up_nobody() -> None:
    """As a connection does that isn't read: a pause shorter than the clock can tell would never end."""
    tender = Tender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tender.run)
        hasty, calm = Patient(*[1e-12] * 100_000), Patient(10)
        for patient in (hasty, calm):
            tender.add(patient, trio.current_time())
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(hasty.seen) < 500
    assert calm.seen == [0, 10]
