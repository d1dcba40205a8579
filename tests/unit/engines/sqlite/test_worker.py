"""The one thread: what goes first, what is left undone, and how it ends."""

import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from chatroom.core.errors import Unavailable
from chatroom.engines.sqlite.worker import Job, Worker


@asynccontextmanager
async def working() -> AsyncIterator[Worker]:
    worker = Worker("test")
    try:
        yield worker
    finally:
        worker.stop(lambda: None)
        with trio.fail_after(10):
            await worker.wait_ended()


class Gate:
    """A job that keeps the thread until it is let go."""

    def __init__(self, worker: Worker) -> None:
        self._reached = trio.Event()
        self._open = threading.Event()
        self._worker = worker
        worker.submit(Job(self._wait, lambda _: None), urgent=True)

    def _wait(self) -> None:
        self._worker.post(self._reached.set)
        assert self._open.wait(10)

    async def reached(self) -> None:
        await self._reached.wait()

    def let_go(self) -> None:
        self._open.set()


class Chores:
    """Chores whose time the test sets."""

    def __init__(self, due: float, work: Callable[[], None]) -> None:
        self.due = due
        self._work = work

    def work(self) -> None:
        self.due = math.inf
        self._work()


async def test_what_a_job_returns_or_raises_comes_back() -> None:
    async with working() as worker:
        assert await worker.call(lambda: 7) == 7
        assert await worker.call(threading.get_ident) not in (threading.get_ident(), 0)
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda: 1 // 0)
        assert await worker.call(lambda: 8) == 8


async def test_a_commit_that_waits_goes_first_and_the_others_in_the_order_they_came() -> None:
    done: list[str] = []
    async with working() as worker:
        gate = Gate(worker)
        await gate.reached()
        for name in ("read 1", "read 2", "commit", "read 3"):
            worker.submit(Job(partial(done.append, name), lambda _: None), urgent=name == "commit")
        gate.let_go()
    assert done == ["commit", "read 1", "read 2", "read 3"]


async def test_between_two_commits_there_is_place_for_a_read_and_a_chore() -> None:
    done: list[str] = []
    async with working() as worker, trio.open_nursery() as nursery:
        worker.attend(Chores(0, lambda: done.append("chore")))
        gate = Gate(worker)
        await gate.reached()
        nursery.start_soon(worker.call, partial(done.append, "read"))
        await trio.testing.wait_all_tasks_blocked()
        gate.let_go()
        await worker.call(lambda: None)
        worker.submit(Job(partial(done.append, "commit"), lambda _: None), urgent=True)
    assert done == ["chore", "read", "commit"]


async def test_a_job_whose_caller_is_gone_is_not_done() -> None:
    done: list[str] = []
    async with working() as worker, trio.open_nursery() as nursery:
        gate = Gate(worker)
        await gate.reached()
        with trio.move_on_after(0.01):
            await worker.call(partial(done.append, "abandoned"))
        nursery.start_soon(worker.call, partial(done.append, "kept"))
        await trio.testing.wait_all_tasks_blocked()
        gate.let_go()
    assert done == ["kept"]


async def test_while_a_job_hangs_nothing_is_kept_of_those_that_were_given_up() -> None:
    """A disk that doesn't answer for long: whoever gives up must leave nothing in the queue."""
    done: list[str] = []
    async with working() as worker, trio.open_nursery() as nursery:
        gate = Gate(worker)
        await gate.reached()
        for _ in range(100):
            with pytest.raises(Unavailable):
                await worker.call(partial(done.append, "given up"), patience=0)
            with trio.move_on_after(0):
                await worker.call(partial(done.append, "cancelled"))
        assert (len(worker._usual), len(worker._urgent)) == (0, 0)
        assert worker._signal.qsize() <= 1
        nursery.start_soon(worker.call, partial(done.append, "kept"))
        await trio.testing.wait_all_tasks_blocked()
        gate.let_go()
    assert done == ["kept"]


async def test_who_waits_for_a_job_that_hangs_can_be_cancelled() -> None:
    async with working() as worker, trio.open_nursery() as nursery:
        hung = threading.Event()
        with trio.move_on_after(0.01) as waiting:
            await worker.call(partial(hung.wait, 10))
        assert waiting.cancelled_caught
        hung.set()
        nursery.start_soon(worker.call, lambda: None)


async def test_who_waits_for_a_job_that_hangs_may_have_enough_of_it() -> None:
    async with working() as worker:
        hung = threading.Event()
        with pytest.raises(Unavailable, match="does not answer"):
            await worker.call(partial(hung.wait, 10), patience=0.01)
        hung.set()
        assert await worker.call(lambda: "works again", patience=5.0) == "works again"


async def test_a_chore_is_done_when_it_is_due_without_any_job() -> None:
    async with working() as worker:
        done = trio.Event()
        await worker.call(lambda: worker.attend(Chores(worker._now() + 0.01, lambda: worker.post(done.set))))
        with trio.fail_after(10):
            await done.wait()


async def test_at_the_end_what_waits_is_done_first_and_the_last_thing_last() -> None:
    done: list[str] = []
    worker = Worker("test")
    async with trio.open_nursery() as nursery:
        gate = Gate(worker)
        await gate.reached()
        nursery.start_soon(worker.call, partial(done.append, "read"))
        await trio.testing.wait_all_tasks_blocked()
        worker.stop(partial(done.append, "last"))
        with pytest.raises(Unavailable):
            await worker.call(partial(done.append, "too late"))
        gate.let_go()
    await worker.wait_ended()
    assert done == ["read", "last"]


async def test_a_chore_that_raises_ends_the_thread_and_nobody_waits_for_ever() -> None:
    worker = Worker("test")

    def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        gate = Gate(worker)
        await gate.reached()

        async def wait() -> None:
            with pytest.raises(Unavailable):
                await worker.call(lambda: None)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        worker.attend(Chores(0, fail))
        gate.let_go()
    with pytest.raises(ZeroDivisionError):
        await worker.wait_ended()
    with pytest.raises(Unavailable):
        await worker.call(lambda: None)


def test_what_comes_back_after_the_run_is_over_disturbs_nobody() -> None:
    hung = threading.Event()

    async def run() -> Worker:
        worker = Worker("test")
        with trio.move_on_after(0.01):
            await worker.call(partial(hung.wait, 10))
        return worker

    trio.run(run)
    hung.set()
    for thread in threading.enumerate():
        if thread.name == "test":
            assert thread.daemon
