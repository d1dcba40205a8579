"""Pending handshakes are bounded; when room is needed, the oldest is dropped, but not within a second."""

import pytest
import trio
import trio.testing

from chatroom.connections.acceptor import OLDEST_KEPT_SECONDS, PendingHandshake, PendingHandshakes

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Handshake:
    """Stays pending until it is told to go, or until it is cancelled."""

    def __init__(self, pending: PendingHandshakes) -> None:
        self._pending = pending
        self._go = trio.Event()
        self.dropped_at: float | None = None
        self.inside = False

    async def run(self) -> None:
        with PendingHandshake(self._pending) as self.handshake:
            self.inside = True
            try:
                await self._go.wait()
            except trio.Cancelled:
                self.dropped_at = trio.current_time()
                raise
            finally:
                self.inside = False

    def go(self) -> None:
        self._go.set()


async def come(nursery: trio.Nursery, pending: PendingHandshakes, *, after: float = 0) -> Handshake:
    await trio.sleep(after)
    handshake = Handshake(pending)
    nursery.start_soon(handshake.run)
    await trio.testing.wait_all_tasks_blocked()
    return handshake


async def test_a_listener_does_not_wait_while_there_is_room() -> None:
    pending = PendingHandshakes(2)
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        await pending.wait_not_full()
        handshake = await come(nursery, pending)
        await pending.wait_not_full()
        assert (len(pending), trio.current_time()) == (1, start)
        handshake.go()
    assert len(pending) == 0


async def test_room_is_used_as_soon_as_a_handshake_ends() -> None:
    pending = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        handshake = await come(nursery, pending)
        start = trio.current_time()

        async def leave() -> None:
            await trio.sleep(0.5)
            handshake.go()

        nursery.start_soon(leave)
        await pending.wait_not_full()
        assert trio.current_time() == start + 0.5
        assert handshake.dropped_at is None


async def test_the_oldest_handshake_is_dropped_after_a_second_and_the_others_are_not() -> None:
    pending = PendingHandshakes(3)
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        first = await come(nursery, pending)
        second = await come(nursery, pending, after=0.4)
        third = await come(nursery, pending, after=0.4)
        await pending.wait_not_full()
        assert trio.current_time() == pytest.approx(start + OLDEST_KEPT_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert first.dropped_at == pytest.approx(start + OLDEST_KEPT_SECONDS)
        assert (second.inside, third.inside, len(pending)) == (True, True, 2)
        for handshake in (second, third):
            handshake.go()


async def test_a_handshake_pending_for_long_is_dropped_as_soon_as_its_room_is_needed() -> None:
    pending = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        handshake = await come(nursery, pending)
        await trio.sleep(4)
        assert handshake.inside
        start = trio.current_time()
        await pending.wait_not_full()
        assert trio.current_time() == start
        await trio.testing.wait_all_tasks_blocked()
        assert handshake.dropped_at == start


async def test_a_dropped_handshake_is_discarded_once() -> None:
    pending = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            await come(nursery, pending)
            await pending.wait_not_full()
        await trio.testing.wait_all_tasks_blocked()
        assert len(pending) == 0


async def test_a_handshake_that_fails_is_discarded() -> None:
    pending = PendingHandshakes(1)
    with pytest.raises(ZeroDivisionError), PendingHandshake(pending):
        raise ZeroDivisionError
    assert len(pending) == 0
    await pending.wait_not_full()


async def test_all_listeners_wake_for_room_and_no_handshake_is_dropped_while_there_is_some() -> None:
    """A server has a listener for each address, and each of them waits for room."""
    pending = PendingHandshakes(2)
    async with trio.open_nursery() as nursery:
        first, second = await come(nursery, pending), await come(nursery, pending)
        async with trio.open_nursery() as listeners:
            for _ in range(2):
                listeners.start_soon(pending.wait_not_full)
            await trio.testing.wait_all_tasks_blocked()
            second.go()
        await trio.sleep(10 * OLDEST_KEPT_SECONDS)
        assert first.inside
        first.go()


async def test_wait_empty_waits_until_no_handshake_is_pending() -> None:
    pending = PendingHandshakes(3)
    await pending.wait_empty()
    async with trio.open_nursery() as nursery:
        first, second = await come(nursery, pending), await come(nursery, pending)
        empty_at = []

        async def wait() -> None:
            await pending.wait_empty()
            empty_at.append(trio.current_time())

        nursery.start_soon(wait)
        start = trio.current_time()
        await trio.sleep(1)
        first.go()
        await trio.sleep(1)
        second.go()
    assert empty_at == [start + 2]


async def test_a_request_that_is_carried_out_is_not_pending_and_not_dropped() -> None:
    pending = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        first = await come(nursery, pending)
        first.handshake.pause()
        first.handshake.pause()
        assert (len(pending), len(pending.paused)) == (0, 1)
        await come(nursery, pending)
        with trio.fail_after(OLDEST_KEPT_SECONDS + 1):
            await pending.wait_not_full()  # the second one made room, as the oldest
        assert first.inside
        first.handshake.resume()
        first.handshake.resume()
        assert (len(pending), len(pending.paused)) == (1, 0)
        with trio.fail_after(OLDEST_KEPT_SECONDS + 1):
            await pending.wait_not_full()
        await trio.testing.wait_all_tasks_blocked()
        assert first.dropped_at is not None
        nursery.cancel_scope.cancel()


async def test_a_stop_waits_for_requests() -> None:
    pending = PendingHandshakes(3)
    async with trio.open_nursery() as nursery:
        first = await come(nursery, pending)
        first.handshake.pause()
        with trio.move_on_after(5) as waiting:
            await pending.wait_answered()
        assert waiting.cancelled_caught
        nursery.start_soon(pending.wait_answered)
        nursery.start_soon(pending.wait_empty)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 3
        first.handshake.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        nursery.cancel_scope.cancel()
