"""The thread that sends commands to one server of the store, and what has become of them.

1. What waits goes out as one pipeline, first what is urgent (appends and who comes or goes, in their
   order), and all its answers come back to the Trio run by one call. A pipeline is bounded by the weight of
   its answers, so that it ends in time.
2. Nothing is tried twice that may have been done. On any doubt the connection is dropped: a job that was
   under way is answered Unavailable, but one that may be done `again` goes first on the next connection,
   once.
3. The thread dials by itself, at once after a drop, then ever more slowly, with jitter. While the store can't
   be used, jobs are answered at once with the reason.
4. A job is answered within its own time, whatever the thread does: the Trio run sees to that. What comes
   later is dropped.
5. The thread is a daemon: a store that never answers holds up neither the event loop nor the process's end.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import trio
from redis import exceptions as refused
from redis.connection import AbstractConnection

from chatroom.core.errors import Unavailable
from chatroom.engines.redis.connecting import (
    Dialler,
    ServerFacts,
    StoreProblem,
    is_missing_function,
    load_functions,
    look,
    problem_of,
)
from chatroom.engines.redis.library import Command, packed
from chatroom.engines.redis.pushes import read_reply

HEAVIEST = 600
"""So much weight is sent as one pipeline at most."""
HEAVY = 20
"""What a command weighs whose answer may have 64 KiB or more."""

Answered = Callable[[Any], None]


class Job:
    """A command, and what is called in the Trio run with its reply or an Unavailable.

    `again`: doing it twice does no harm. `due`: when it is answered at the latest, in Trio's time.
    """

    __slots__ = ("again", "answered", "command", "due", "given_up", "weight")

    def __init__(
        self, command: Command, answered: Answered, *, again: bool, due: float, weight: int = 1
    ) -> None:
        self.command = command
        self.answered = answered
        self.again = again
        self.due = due
        self.weight = weight
        self.given_up = False


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that the threads wait: for a dial or an answer, for a whole pipeline, and before they dial
    again."""

    answer: float = 1.0
    pipeline: float = 2.0
    first_pause: float = 0.05
    longest_pause: float = 2.0
    chance: random.Random = field(default_factory=random.Random)

    def longer(self, pause: float) -> float:
        """The next pause."""
        return min(self.longest_pause, max(self.first_pause, 2 * pause))

    def spread(self, pause: float) -> float:
        """A pause, or up to half of it less: many nodes shall not come at once."""
        return pause * self.chance.uniform(0.5, 1)


class Owner(Protocol):
    """Who is told of what the thread does; all in the Trio run."""

    def connected(self, facts: ServerFacts) -> None:
        """There is a connection. Called before anything that comes by it."""
        ...

    def lost(self, problem: str, *, unfit: bool) -> None:
        """The store can't be used; it is tried again. `unfit`: as it is, it must not be."""
        ...

    def looked_at(self, facts: ServerFacts) -> None:
        """How the server is set up now."""
        ...

    def replied(self, number: int, replies: list[tuple[Job, Any]], seconds: float) -> None:
        """The answers to a pipeline, which has taken so many seconds."""
        ...

    def ended(self) -> None:
        """The thread has ended."""
        ...

    def broken(self, error: BaseException) -> None:
        """The thread has ended by a fault of ours."""
        ...


class Commander:
    """The thread; `started` is the number of the last pipeline begun."""

    def __init__(self, name: str, dialler: Dialler, owner: Owner, pace: Pace) -> None:
        self._dialler = dialler
        self._owner = owner
        self._pace = pace
        # Both threads use these two, by operations that are one step.
        self._urgent: deque[Job] = deque()
        self._jobs: deque[Job] = deque()
        self._signal: SimpleQueue[None] = SimpleQueue()  # at most one item: there is something to look at
        self._signalled = False
        self._looking = False
        self._stopping = False
        self._token = trio.lowlevel.current_trio_token()
        self.started = 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def waiting(self) -> bool:
        """A job waits to be sent."""
        return bool(self._jobs or self._urgent)

    def submit(self, job: Job, *, urgent: bool = False) -> None:
        """Have a job done."""
        (self._urgent if urgent else self._jobs).append(job)
        self._wake()

    def look_again(self) -> None:
        """Find out whether the server is set up as it was."""
        self._looking = True
        self._wake()

    def stop(self) -> None:
        """The thread ends when what waits has been done, or can't be."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        if not self._signalled:
            self._signalled = True
            self._signal.put(None)

    # In the thread

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def _run(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:
            self._post(self._owner.broken, error)
        self._post(self._owner.ended)

    def _keep_connected(self) -> None:
        pause = 0.0
        while not self._stopping:
            try:
                connection, facts = self._connect()
            except Exception as error:
                problem = problem_of(error)
                self._post(partial(self._owner.lost, problem, unfit=isinstance(error, StoreProblem)))
                pause = self._pace.longer(pause)
                self._rest(self._pace.spread(pause), problem)
                continue
            pause = 0.0
            self._post(self._owner.connected, facts)
            self._use(connection)
            connection.disconnect()
        self._fail("the store is closed")

    def _connect(self) -> tuple[AbstractConnection, ServerFacts]:
        connection = self._dialler.dial()
        try:
            facts = self._dialler.prepare(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection, facts

    def _rest(self, seconds: float, problem: str) -> None:
        """Wait before the next dial, and turn jobs away that have come before the Trio run knew."""
        until = time.monotonic() + seconds
        self._fail(problem)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            with suppress(Empty):
                self._signal.get(timeout=left)
                self._signalled = False
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        failed: list[tuple[Job, Any]] = []
        for waiting in (self._urgent, self._jobs):
            while waiting:
                failed.append((waiting.popleft(), Unavailable(problem)))
        if failed:
            self._post(self._owner.replied, 0, failed, 0.0)

    def _use(self, connection: AbstractConnection) -> None:
        """Send what comes, until there is a doubt or nothing more is to come."""
        while True:
            if self._looking and not self._look(connection):
                return
            jobs = self._take()
            if not jobs:
                if self._stopping:
                    return
                self._signal.get()
                self._signalled = False
                continue
            self.started += 1
            began = time.monotonic()
            replies, left, problem = self._exchange(connection, jobs)
            self._put_back(left, problem, replies)
            self._post(self._owner.replied, self.started, replies, time.monotonic() - began)
            if problem:
                return

    def _look(self, connection: AbstractConnection) -> bool:
        """Look at the server; false if the connection is in doubt."""
        self._looking = False
        try:
            facts = look(connection)
        except Exception:
            return False
        self._post(self._owner.looked_at, facts)
        return True

    def _take(self) -> list[Job]:
        jobs: list[Job] = []
        weight = 0
        for waiting in (self._urgent, self._jobs):
            while waiting and weight < HEAVIEST:
                job = waiting.popleft()
                if not job.given_up:
                    jobs.append(job)
                    weight += job.weight
        return jobs

    def _exchange(
        self, connection: AbstractConnection, jobs: list[Job]
    ) -> tuple[list[tuple[Job, Any]], list[Job], str]:
        """The replies; the jobs that have none and are in doubt; why the connection is to be dropped, or
        nothing."""
        replies: list[tuple[Job, Any]] = []
        until = time.monotonic() + self._pace.pipeline
        try:
            _send(connection, jobs)
            missing = []
            for job in jobs:
                reply = _reply(connection)
                if isinstance(reply, Exception) and is_missing_function(reply):
                    missing.append(job)
                else:
                    replies.append((job, reply))
                if time.monotonic() > until:
                    raise refused.TimeoutError  # noqa: TRY301  (as if the socket had said so)
            if missing:
                load_functions(connection)
                _send(connection, missing)
                for job in missing:
                    replies.append((job, _reply(connection)))
        except Exception as error:
            answered = {job for job, _ in replies}
            return replies, [job for job in jobs if job not in answered], problem_of(error)
        demoted = next((reply for _, reply in replies if isinstance(reply, refused.ReadOnlyError)), None)
        return replies, [], "" if demoted is None else problem_of(demoted)

    def _put_back(self, jobs: Iterable[Job], problem: str, replies: list[tuple[Job, Any]]) -> None:
        """What may be done again goes first, once; the rest is answered."""
        first = []
        for job in jobs:
            if job.again and not self._stopping:
                job.again = False
                first.append(job)
            else:
                replies.append((job, Unavailable(problem)))
        self._jobs.extendleft(reversed(first))


def _send(connection: AbstractConnection, jobs: list[Job]) -> None:
    connection.send_packed_command([b"".join([packed(job.command) for job in jobs])], check_health=False)


def _reply(connection: AbstractConnection) -> Any:
    """A reply: a list, if one of our functions has answered; or an error that the server has told."""
    try:
        reply = connection.read_response(disable_decoding=True)
    except refused.ResponseError as error:
        return error
    return read_reply(reply) if isinstance(reply, bytes) and reply.startswith(b"[") else reply
