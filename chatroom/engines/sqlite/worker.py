"""The one thread that uses the database, and what it does next.

1. A commit that waits goes first, then one other job, then a chore if one is due. Other jobs are done in the
   order in which they came: since each reader waits for its answer before it reads on, readers take turns.
2. A task that waits for a job may be cancelled, or give up. If the job has not begun, it is then taken off
   the queue at once; if it has, its result is dropped. So while the disk hangs, the queue holds only jobs
   that are waited for.
3. The thread is a daemon: a disk that never answers holds up neither the event loop nor the end of the
   process.
4. An exception that a job raises is its answer. An exception that a chore raises ends the thread:
   `wait_ended` raises it, and the answer to later jobs is Unavailable.

It doesn't know SQLite, nor what a job does.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import trio

from chatroom.core.errors import Unavailable

T = TypeVar("T")


class Chores(Protocol):
    """What the thread does besides jobs."""

    @property
    def due(self) -> float:
        """When there is something to do, in the thread's time; infinity for not before another job."""
        ...

    def work(self) -> None:
        """Do a little of what is due."""
        ...


class Job:
    """A function for the thread; `answered` is called in the Trio run with what it returned or raised."""

    __slots__ = ("answered", "function")

    def __init__(self, function: Callable[[], T], answered: Callable[[T | Exception], None]) -> None:
        self.function: Callable[[], Any] = function
        self.answered: Callable[[Any], None] = answered


class Worker:
    """Runs jobs in its thread, for tasks of one Trio run."""

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # Both threads use these two: each operation on them is one step to the other thread.
        self._urgent: OrderedDict[Job, None] = OrderedDict()
        self._usual: OrderedDict[Job, None] = OrderedDict()
        self._signal: SimpleQueue[None] = SimpleQueue()  # at most one item: the queues are to be looked at
        self._signalled = False
        self._chores: Chores | None = None
        self._stopping = False
        self._last: Callable[[], None] | None = None
        self._ended = trio.Event()
        self._failure: BaseException | None = None
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, job: Job, *, urgent: bool = False) -> None:
        """Have the thread do `job`. If the thread has ended, the answer is Unavailable, perhaps at once."""
        if self._stopping or self._ended.is_set():
            job.answered(Unavailable("the log is closed"))
            return
        (self._urgent if urgent else self._usual)[job] = None
        self._wake()

    async def call(self, function: Callable[[], T], *, patience: float = math.inf) -> T:
        """Run `function` in the thread and return what it returns, or raise what it raises.

        Raises Unavailable when the thread has ended, or has no answer within `patience` seconds.
        """
        done = trio.Event()
        answer: T | Exception = Unavailable("the log does not answer")

        def answered(given: T | Exception) -> None:
            nonlocal answer
            answer = given
            done.set()

        job = Job(function, answered)
        self.submit(job)
        try:
            with trio.move_on_after(patience):
                await done.wait()
        finally:
            self._usual.pop(job, None)  # rule 2
        if isinstance(answer, Exception):
            raise answer
        return answer

    def post(self, function: Callable[..., None], *arguments: object) -> None:
        """Have `function` called in the Trio run; for the thread.

        Calls are made in the order of their posting.
        """
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def attend(self, chores: Chores) -> None:
        """Do these chores from now on; for the thread."""
        self._chores = chores

    def stop(self, last: Callable[[], None]) -> None:
        """Refuse further jobs. When those that wait are done, the thread calls `last` and ends."""
        self._last = last
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        """Have the thread look at its queues, unless it is about to."""
        if not self._signalled:
            self._signalled = True
            self._signal.put(None)

    async def wait_ended(self) -> None:
        """Wait until the thread has ended. Raises the exception that ended it, if `stop` didn't."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    # In the thread

    def _run(self) -> None:
        failure = None
        try:
            while self._work():
                pass
            if self._last is not None:
                self._last()
        except BaseException as error:
            failure = error
        self.post(self._end, failure)

    def _work(self) -> bool:
        """One round of rule 1. Return false after the last one."""
        job = self._next_job()
        if job is not None:
            self.post(job.answered, _answer(job))
        elif self._stopping:
            return False
        if self._chores is not None and self._chores.due <= self._now():
            self._chores.work()
        return True

    def _next_job(self) -> Job | None:
        """The next job; None if a chore is due first, or the thread is to stop."""
        if (job := self._pop_job()) is not None or self._stopping:
            return job
        due = math.inf if self._chores is None else self._chores.due
        try:
            self._signal.get(timeout=None if due == math.inf else max(0.0, due - self._now()))
        except Empty:
            return None
        self._signalled = False  # before the look: a job that is handed in after the look signals again
        return self._pop_job()

    def _pop_job(self) -> Job | None:
        for jobs in (self._urgent, self._usual):
            if jobs:
                with suppress(KeyError):  # the last job has just been given up
                    return jobs.popitem(last=False)[0]
        return None

    def _end(self, failure: BaseException | None) -> None:
        """The thread has ended: answer all that wait for it."""
        self._failure = failure
        self._ended.set()
        for job in (*self._urgent, *self._usual):
            job.answered(Unavailable("the log is closed"))


def _answer(job: Job) -> object:
    try:
        return job.function()
    except Exception as error:
        return error
