"""The lobby is bounded; when it is full, who has waited longest makes room, but not before a second."""

import pytest
import trio
import trio.testing

from chatroom.connections.acceptor import PATIENCE, PendingHandshakes

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Visitor:
    """Stays in the lobby until told to go, or until its visit is cancelled."""

    def __init__(self, lobby: PendingHandshakes) -> None:
        self._lobby = lobby
        self._go = trio.Event()
        self.dropped_at: float | None = None
        self.inside = False

    async def visit(self) -> None:
        with self._lobby.visit():
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


async def come(nursery: trio.Nursery, lobby: PendingHandshakes, *, after: float = 0) -> Visitor:
    await trio.sleep(after)
    visitor = Visitor(lobby)
    nursery.start_soon(visitor.visit)
    await trio.testing.wait_all_tasks_blocked()
    return visitor


async def test_while_there_is_room_nobody_waits() -> None:
    lobby = PendingHandshakes(2)
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        await lobby.wait_place()
        visitor = await come(nursery, lobby)
        await lobby.wait_place()
        assert (len(lobby), trio.current_time()) == (1, start)
        visitor.go()
    assert len(lobby) == 0


async def test_a_place_that_becomes_free_is_given_at_once() -> None:
    lobby = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        visitor = await come(nursery, lobby)
        start = trio.current_time()

        async def leave() -> None:
            await trio.sleep(0.5)
            visitor.go()

        nursery.start_soon(leave)
        await lobby.wait_place()
        assert trio.current_time() == start + 0.5
        assert visitor.dropped_at is None


async def test_who_has_waited_longest_is_dropped_after_a_second_and_the_others_are_not() -> None:
    lobby = PendingHandshakes(3)
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        first = await come(nursery, lobby)
        second = await come(nursery, lobby, after=0.4)
        third = await come(nursery, lobby, after=0.4)
        await lobby.wait_place()
        assert trio.current_time() == pytest.approx(start + PATIENCE)
        await trio.testing.wait_all_tasks_blocked()
        assert first.dropped_at == pytest.approx(start + PATIENCE)
        assert (second.inside, third.inside, len(lobby)) == (True, True, 2)
        for visitor in (second, third):
            visitor.go()


async def test_who_has_waited_long_already_is_dropped_as_soon_as_the_place_is_needed() -> None:
    lobby = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        visitor = await come(nursery, lobby)
        await trio.sleep(4)
        assert visitor.inside
        start = trio.current_time()
        await lobby.wait_place()
        assert trio.current_time() == start
        await trio.testing.wait_all_tasks_blocked()
        assert visitor.dropped_at == start


async def test_a_place_is_counted_once_though_its_visitor_was_dropped() -> None:
    lobby = PendingHandshakes(1)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            await come(nursery, lobby)
            await lobby.wait_place()
        await trio.testing.wait_all_tasks_blocked()
        assert len(lobby) == 0


async def test_a_visit_that_fails_gives_its_place_back() -> None:
    lobby = PendingHandshakes(1)
    with pytest.raises(ZeroDivisionError), lobby.visit():
        raise ZeroDivisionError
    assert len(lobby) == 0
    await lobby.wait_place()


async def test_all_who_wait_hear_of_a_place_and_nobody_is_dropped_while_one_is_free() -> None:
    """A server has a listener for each address, and each of them waits for a place."""
    lobby = PendingHandshakes(2)
    async with trio.open_nursery() as nursery:
        first, second = await come(nursery, lobby), await come(nursery, lobby)
        async with trio.open_nursery() as listeners:
            for _ in range(2):
                listeners.start_soon(lobby.wait_place)
            await trio.testing.wait_all_tasks_blocked()
            second.go()
        await trio.sleep(10 * PATIENCE)
        assert first.inside
        first.go()


async def test_one_may_wait_until_nobody_is_there() -> None:
    lobby = PendingHandshakes(3)
    await lobby.wait_empty()
    async with trio.open_nursery() as nursery:
        first, second = await come(nursery, lobby), await come(nursery, lobby)
        empty_at = []

        async def wait() -> None:
            await lobby.wait_empty()
            empty_at.append(trio.current_time())

        nursery.start_soon(wait)
        start = trio.current_time()
        await trio.sleep(1)
        first.go()
        await trio.sleep(1)
        second.go()
    assert empty_at == [start + 2]
