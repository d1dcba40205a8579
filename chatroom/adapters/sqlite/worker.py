"""The one thread that uses the database, and what it does next.

1. A commit that waits goes first, then one other job, then a chore if one is due. Others' jobs are done in
   the order in which they came: since each who reads waits for the answer before reading on, they take turns.
2. Whoever waits for a job may be cancelled. Then a job that has not begun is not done, and of one that has
   begun nobody hears.
3. The thread is a daemon: a disk that never answers holds up neither the event loop nor the process's end.
4. What a job raises is raised where it is awaited. What a chore raises ends the thread: `wait_ended` raises
   it, and jobs that come later raise Unavailable.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import trio

from chatroom.values.errors import Unavailable

T = TypeVar("T")


class Chores(Protocol):
    """What the thread does of its own accord."""

    @property
    def due(self) -> float:
        """When there is something to do, in the thread's time; infinity for not before another job."""
        ...

    def work(self) -> None:
        """Do a little of it."""
        ...


class _Job:
    """Something to do, and what has become of it."""

    __slots__ = ("_function", "abandoned", "done", "error", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.abandoned = False
        self.done = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.value = self._function()
        except Exception as error:
            self.error = error


class Worker:
    """Runs jobs in its thread, for tasks of one Trio run."""

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._urgent: deque[_Job] = deque()
        self._usual: deque[_Job] = deque()
        self._signal: SimpleQueue[None] = SimpleQueue()  # one item for each job, and one for the end
        self._chores: Chores | None = None
        self._stopping = False
        self._last: Callable[[], None] | None = None
        self._ended = trio.Event()
        self._failure: BaseException | None = None
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T], *, urgent: bool = False, patience: float = math.inf) -> T:
        """Run `function` in the thread and return what it returns, or raise what it raises.

        Raises Unavailable when the thread has ended, or has no answer within `patience` seconds.
        """
        if self._stopping or self._ended.is_set():
            raise Unavailable("the log is closed")
        job = _Job(function)
        (self._urgent if urgent else self._usual).append(job)
        self._signal.put(None)
        try:
            with trio.move_on_after(patience):
                await job.done.wait()
        finally:
            job.abandoned = True
        if not job.done.is_set():
            raise Unavailable("the log does not answer")
        if job.error is not None:
            raise job.error
        value: T = job.value
        return value

    def post(self, function: Callable[..., None], *arguments: object) -> None:
        """Have `function` called in the Trio run; for the thread. What is posted is called in its order."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def attend(self, chores: Chores) -> None:
        """Do these chores from now on; for the thread."""
        self._chores = chores

    def stop(self, last: Callable[[], None]) -> None:
        """Take no further job; the thread ends when those that wait are done, with this one."""
        self._last = last
        self._stopping = True
        self._signal.put(None)

    async def wait_ended(self) -> None:
        """Wait until the thread has ended; raise what ended it, if it was not `stop`."""
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
        """One round of rule 1; false when it was the last."""
        job = self._next_job()
        if job is not None:
            if not job.abandoned:
                job.run()
            self.post(job.done.set)
        elif self._stopping:
            return False
        if self._chores is not None and self._chores.due <= self._now():
            self._chores.work()
        return True

    def _next_job(self) -> _Job | None:
        """The next job; None if a chore is due first, or if it is time to stop."""
        due = math.inf if self._chores is None else self._chores.due
        try:
            self._signal.get(timeout=None if due == math.inf else max(0.0, due - self._now()))
        except Empty:
            return None
        for jobs in (self._urgent, self._usual):
            if jobs:
                return jobs.popleft()
        return None

    def _end(self, failure: BaseException | None) -> None:
        """The thread has ended: nobody may wait for it any more."""
        self._failure = failure
        self._ended.set()
        for job in (*self._urgent, *self._usual):
            job.error = Unavailable("the log is closed")
            job.done.set()
