"""The thread that sends commands to one server of the store, and reads their replies.

Owns: the connection for commands, and the jobs that wait to be sent.

1. All jobs that wait go out as one pipeline, the urgent ones first (appends and presence, in their order).
   All replies go back to the Trio run by one call. The weight of its replies bounds a pipeline, so that it
   ends in time.
2. A command that may have been done is never sent twice. On any doubt the thread drops the connection. A job
   under way is answered Unavailable then, but a job with `retry` goes first on the next connection, once.
3. The thread reconnects by itself: at once after a drop, then ever more slowly, with jitter. While the store
   can't be used, jobs are answered at once with the reason.
4. The Trio run answers each job within its own time, whatever the thread does. A later reply is dropped.
5. The thread is a daemon: a store that never answers delays neither the event loop nor the process's end.

Doesn't know: what commands mean, and which server it is.
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
    Connector,
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
"""The weight of a command whose reply may have 64 KiB or more."""

Answered = Callable[[Any], None]


class Job:
    """A command, and the function that is called in the Trio run with its reply or an Unavailable.

    `retry`: it may be done twice without harm. `due`: when it is answered at the latest, in Trio's time.
    """

    __slots__ = ("answered", "command", "due", "given_up", "retry", "weight")

    def __init__(
        self, command: Command, answered: Answered, *, retry: bool, due: float, weight: int = 1
    ) -> None:
        self.command = command
        self.answered = answered
        self.retry = retry
        self.due = due
        self.weight = weight
        self.given_up = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that the threads wait: for a connection or a reply, for a whole pipeline, and before they
    connect again."""

    answer: float = 1.0
    pipeline: float = 2.0
    first_pause: float = 0.05
    longest_pause: float = 2.0
    chance: random.Random = field(default_factory=random.Random)

    def longer(self, pause: float) -> float:
        """The next pause."""
        return min(self.longest_pause, max(self.first_pause, 2 * pause))

    def spread(self, pause: float) -> float:
        """A random part of a pause, at least half of it: so many nodes don't come at once."""
        return pause * self.chance.uniform(0.5, 1)


class CommandListener(Protocol):
    """The object that hears what the thread does; all its methods are called in the Trio run."""

    def connected(self, facts: ServerFacts) -> None:
        """There is a connection. Called before `replied` for any command on it."""
        ...

    def lost(self, problem: str, *, unfit: bool) -> None:
        """The store can't be used; the thread keeps trying. `unfit`: its version or settings forbid it."""
        ...

    def looked_at(self, facts: ServerFacts) -> None:
        """The facts of the server, asked for again."""
        ...

    def replied(self, number: int, replies: list[tuple[Job, Any]], seconds: float) -> None:
        """The replies to a pipeline, which took so many seconds."""
        ...

    def ended(self) -> None:
        """The thread has ended."""
        ...

    def broken(self, error: BaseException) -> None:
        """The thread has ended by a fault of ours."""
        ...


class Commander:
    """The thread; `started` is the number of the last pipeline begun."""

    def __init__(self, name: str, connector: Connector, listener: CommandListener, timing: Timing) -> None:
        self._connector = connector
        self._listener = listener
        self._timing = timing
        # Both threads use these two, by operations that are one step.
        self._urgent: deque[Job] = deque()
        self._jobs: deque[Job] = deque()
        self._signal: SimpleQueue[None] = SimpleQueue()  # at most one item: a job or a wish has come
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
        """Ask the server for its facts again."""
        self._looking = True
        self._wake()

    def stop(self) -> None:
        """End the thread when the waiting jobs have been done, or can't be."""
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
            self._post(self._listener.broken, error)
        self._post(self._listener.ended)

    def _keep_connected(self) -> None:
        pause = 0.0
        while not self._stopping:
            try:
                connection, facts = self._connect()
            except Exception as error:
                problem = problem_of(error)
                self._post(partial(self._listener.lost, problem, unfit=isinstance(error, StoreProblem)))
                pause = self._timing.longer(pause)
                self._rest(self._timing.spread(pause), problem)
                continue
            pause = 0.0
            self._post(self._listener.connected, facts)
            self._use(connection)
            connection.disconnect()
        self._fail("the store is closed")

    def _connect(self) -> tuple[AbstractConnection, ServerFacts]:
        connection = self._connector.connect()
        try:
            facts = self._connector.prepare(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection, facts

    def _rest(self, seconds: float, problem: str) -> None:
        """Wait before the next try, and refuse jobs that came before the Trio run knew of the loss."""
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
            self._post(self._listener.replied, 0, failed, 0.0)

    def _use(self, connection: AbstractConnection) -> None:
        """Send jobs as they come, until there is a doubt or the thread is to end."""
        while True:
            if self._looking and not self._look(connection):
                return
            jobs = self._next_pipeline()
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
            self._post(self._listener.replied, self.started, replies, time.monotonic() - began)
            if problem:
                return

    def _look(self, connection: AbstractConnection) -> bool:
        """Ask the server for its facts; false if the connection is in doubt."""
        self._looking = False
        try:
            facts = look(connection)
        except Exception:
            return False
        self._post(self._listener.looked_at, facts)
        return True

    def _next_pipeline(self) -> list[Job]:
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
        """The replies; the jobs that have none and are in doubt; the reason to drop the connection, or
        nothing."""
        replies: list[tuple[Job, Any]] = []
        until = time.monotonic() + self._timing.pipeline
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
        """Put jobs with `retry` in front, once; answer the others."""
        first = []
        for job in jobs:
            if job.retry and not self._stopping:
                job.retry = False
                first.append(job)
            else:
                replies.append((job, Unavailable(problem)))
        self._jobs.extendleft(reversed(first))


def _send(connection: AbstractConnection, jobs: list[Job]) -> None:
    connection.send_packed_command([b"".join([packed(job.command) for job in jobs])], check_health=False)


def _reply(connection: AbstractConnection) -> Any:
    """A reply: a list if it comes from one of our functions; or the error that the server sent."""
    try:
        reply = connection.read_response(disable_decoding=True)
    except refused.ResponseError as error:
        return error
    return read_reply(reply) if isinstance(reply, bytes) and reply.startswith(b"[") else reply
