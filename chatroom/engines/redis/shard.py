"""One server of the store, as the Trio run sees it: jobs with a time by which they are answered, and pushes.

1. A job is answered once and in time: with its reply, or with Unavailable and the reason. While the server
   can't be used, that is at once.
2. Where the server syncs each write before it answers, a push proves nothing: it may come before the sync. It
   is handed on when a command that was sent after it arrived has been answered.
3. `trouble` says why no message can be stored just now; each change of it is one line in the log.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import trio
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    TryAgainError,
)

from chatroom.core.errors import Unavailable
from chatroom.core.logevents import log_event
from chatroom.engines.redis.commander import Commander, Job, Pace
from chatroom.engines.redis.connecting import Dialler, ServerFacts, is_write_refusal, problem_of
from chatroom.engines.redis.library import PING, PROBE, Command, ServerAddress, slot_of
from chatroom.engines.redis.pushes import Push
from chatroom.engines.redis.subscriber import Subscriber

CHANGES = (MovedError, AskError, TryAgainError, ClusterDownError)
CHANGING = "the store's cluster is changing"
TICK = 0.1
"""Seconds between two looks at jobs whose time is up."""
PROOF_SECONDS = 3.0
MOST_UNPROVEN = 100
"""So many calls' worth of pushes wait for their proof at most."""

Pushes = list[tuple[bytes, Push]]


class Elsewhere(Unavailable):
    """It isn't this server that has what was asked for, or not yet; nothing was done."""


class ShardSink(Protocol):
    """Who uses the shards; all is called in the Trio run."""

    def subscribed(self, channels: list[bytes]) -> None:
        """These channels are listened to from now on; there may have been a gap before."""
        ...

    def pushed(self, pushes: Pushes) -> None:
        """This has come."""
        ...

    def deaf(self, shard: "Shard") -> None:
        """Nothing is listened to just now."""
        ...

    def unheard(self, slots: Iterable[int]) -> None:
        """Channels in these slots can't be listened to at this server."""
        ...

    def regained(self, shard: "Shard", *, restarted: bool) -> None:
        """The server can be used again; `restarted`: it isn't the process that it was."""
        ...

    def looked_at(self) -> None:
        """How a server is set up has been looked at."""
        ...

    def refused(self, error: Exception) -> None:
        """The server has refused something for a reason that is none of its states."""
        ...


class Shard:
    """One server with its two threads."""

    def __init__(
        self,
        address: ServerAddress,
        dialler: Dialler,
        sink: ShardSink,
        *,
        shown: str,
        node: str,
        pace: Pace,
        ping: float,
        observe: Callable[[float], None],
        sharded: bool = False,
    ) -> None:
        """`shown`: the server's address as the log names it. `observe` is told how long each round trip took,
        in seconds.
        """
        self.address = address
        self._shown = shown
        self._sink = sink
        self._observe = observe
        self._jobs: dict[Job, None] = {}
        self._busy = trio.Event()
        self._looked = trio.Event()  # the first dial has ended
        self._begun = False  # what is wrong is told from now on
        self.unfit = False  # the server must not be used as it is
        self._ended = trio.Event()
        self._threads = 2
        self._down: str | None = "the store hasn't been reached yet"
        self._refusal: str | None = None
        self._forbidden: str | None = None
        self._deaf: str | None = None
        self._hears = True
        self._told: str | None = None
        self._unproven: deque[tuple[int, Pushes]] = deque()
        self._proving = False
        self._stopping = False
        self._failure: BaseException | None = None
        self._heard_of: str | None = None  # the process that the subscription is with
        self.facts: ServerFacts | None = None
        self.reconnects = 0
        self._commander = Commander("chatroom-store", dialler, self, pace)
        self._subscriber = Subscriber(
            "chatroom-pushes", dialler, self, pace, node=node, ping=ping, sharded=sharded
        )

    @property
    def trouble(self) -> str | None:
        """Why nothing can be stored just now, or nothing heard."""
        return self._down or self._refusal or self._forbidden or self._deaf

    @property
    def down(self) -> str | None:
        """Why nothing at all can be asked just now."""
        return self._down

    @property
    def under_way(self) -> int:
        """How many jobs wait for their answer."""
        return len(self._jobs)

    @property
    def silence(self) -> float:
        """For how many seconds the subscription has heard nothing."""
        return max(0.0, time.monotonic() - self._subscriber.heard)

    async def wait_looked(self) -> None:
        """Wait for the end of the first dial; `down` says then whether the server can be used."""
        await self._looked.wait()

    def begin(self) -> None:
        """Say from now on in the log what is wrong."""
        self._begun = True
        self._tell_change()

    async def run(self) -> None:
        """See that jobs are answered in time, until cancelled. Raises what a thread has ended by."""
        while True:
            await self._busy.wait()
            if self._failure is not None:
                raise self._failure
            await trio.sleep(TICK)
            now = trio.current_time()
            for job in [job for job in self._jobs if job.due <= now]:
                job.given_up = True
                self._answer(job, Unavailable("the store does not answer"))
            if not self._jobs and self._failure is None:
                self._busy = trio.Event()

    def stop(self) -> None:
        """Take no further job; the threads end when what waits has been done."""
        self._stopping = True
        self._commander.stop()
        self._subscriber.stop()

    async def wait_ended(self) -> None:
        """Wait for the threads: one that is in OpenSSL while the process ends would crash it."""
        await self._ended.wait()

    # Jobs

    def submit(
        self,
        command: Command,
        answered: Callable[[Any], None],
        *,
        patience: float,
        again: bool,
        weight: int = 1,
        urgent: bool = False,
    ) -> Job:
        """Have a command done; `answered` gets its reply or Unavailable, perhaps at once. For the rest see
        Job.

        What is `urgent` goes before all else.
        """
        job = Job(command, answered, again=again, due=trio.current_time() + patience, weight=weight)
        if self._stopping or self._down is not None:
            answered(Unavailable(self._down or "the store is closed"))
            return job
        self._jobs[job] = None
        self._busy.set()
        self._commander.submit(job, urgent=urgent)
        return job

    async def call(self, command: Command, *, patience: float, weight: int = 1) -> Any:
        """The reply to a command that may be sent twice. Raises Unavailable."""
        done = trio.Event()
        answer: Any = None

        def answered(reply: Any) -> None:
            nonlocal answer
            answer = reply
            done.set()

        job = self.submit(command, answered, patience=patience, again=True, weight=weight)
        try:
            await done.wait()
        finally:
            job.given_up = True
            self._jobs.pop(job, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, command: Command) -> None:
        """Have a command done that may be lost."""
        if self._down is None and not self._stopping:
            self._commander.submit(Job(command, _ignore, again=False, due=0.0))

    def probe(self) -> None:
        """Find out whether messages can be stored."""
        self.submit(PROBE, self._probed, patience=1.0, again=False)

    def _probed(self, reply: Any) -> None:
        if isinstance(reply, list):
            self.accepted()

    def accepted(self) -> None:
        """A message, or a probe, was taken."""
        self._refusal = None
        if self._hears:
            self._deaf = None
        self._tell_change()

    def _answer(self, job: Job, reply: Any) -> None:
        if job in self._jobs:
            del self._jobs[job]
            job.answered(reply)

    def _understood(self, reply: Any) -> Any:
        """A reply, or Unavailable in the place of what the server has told."""
        if not isinstance(reply, Exception) or isinstance(reply, Unavailable):
            return reply
        if isinstance(reply, CHANGES):
            return Elsewhere(CHANGING)
        problem = problem_of(reply)
        if is_write_refusal(reply):
            self._refusal = problem
            self._tell_change()
        else:
            self._sink.refused(reply)
        return Unavailable(problem)

    def _look_at_rights(self, command: Command, reply: Any) -> None:
        """Whether the server's user may do what all depends on: call functions, with keys.

        A probe has no keys, so only others can say that it may again.
        """
        name, _, keys, *_ = (*command, 0, 0)
        if name == "FCALL" and isinstance(reply, NoPermissionError):
            self._forbidden = problem_of(reply)
            self._tell_change()
        elif self._forbidden is not None and name == "FCALL" and keys and isinstance(reply, list):
            self._forbidden = None
            self._tell_change()

    # Called by the thread that sends

    def connected(self, facts: ServerFacts) -> None:
        """See Owner."""
        restarted = self.facts is not None and self.facts.run_id != facts.run_id
        again = self._looked.is_set()
        self.facts, self._down, self.unfit = facts, None, False
        if restarted:
            self._unproven.clear()
        self.reconnects += again
        self._looked.set()
        self._tell_change()
        self._ask_for_proof()
        self.look_after()
        if again:
            self._sink.regained(self, restarted=restarted)

    def look_again(self) -> None:
        """Find out whether the server is set up as it was."""
        if self._down is None and not self._stopping:
            self._commander.look_again()

    def looked_at(self, facts: ServerFacts) -> None:
        """See Owner."""
        self.facts = facts
        self._sink.looked_at()

    def lost(self, problem: str, *, unfit: bool) -> None:
        """See Owner."""
        self._down = problem
        self.unfit = unfit
        self._looked.set()
        self._tell_change()

    def replied(self, number: int, replies: list[tuple[Job, Any]], seconds: float) -> None:
        """See Owner."""
        if number:
            self._observe(seconds)
            if any(not isinstance(reply, Unavailable) for _, reply in replies):
                self._prove(number)
        for job, reply in replies:
            if job in self._jobs:
                self._look_at_rights(job.command, reply)
                self._answer(job, self._understood(reply))

    def ended(self) -> None:
        """See Owner and Listener."""
        self._threads -= 1
        if not self._threads:
            self._ended.set()

    def broken(self, error: BaseException) -> None:
        """See Owner and Listener."""
        self._failure = error
        self._busy.set()

    def _tell_change(self) -> None:
        begun = self._begun and self._looked.is_set()
        if (trouble := self.trouble) == self._told or not begun:
            return
        if trouble is not None:
            log_event(logging.ERROR, "store_lost", reason=trouble, server=self._shown)
        elif self._told is not None:
            log_event(logging.WARNING, "store_back", server=self._shown)
        self._told = trouble

    # Pushes

    def subscribe(self, channel: str) -> None:
        """Listen to a channel."""
        self._subscriber.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        """Listen to it no longer."""
        self._subscriber.unsubscribe(channel)

    def subscribed(self, channels: list[bytes]) -> None:
        """See Listener."""
        self._sink.subscribed(channels)

    def ended_by_server(self, channels: list[bytes]) -> None:
        """See Listener."""
        self._sink.unheard([slot_of(channel.decode()) for channel in channels])

    def refused(self, error: Exception) -> None:
        """See Listener."""
        if isinstance(error, MovedError):
            self._sink.unheard([error.slot_id])
        elif isinstance(error, CHANGES):
            self._sink.unheard(())
        elif not is_write_refusal(error):
            self._sink.refused(error)

    def hearing(self, run_id: str) -> None:
        """See Listener. What loads its data can be listened to before it takes messages."""
        self._hears, self._heard_of = True, run_id
        if self._deaf is not None:
            self.probe()

    def look_after(self) -> None:
        """See that both connections lead to the same server: after a failover one may be left at the old
        one."""
        if self.facts is not None and self._down is None and self._heard_of not in (None, self.facts.run_id):
            self._heard_of = None
            self._subscriber.dial_anew()

    def cut(self) -> None:
        """See Listener."""
        self._sink.deaf(self)
        self.probe()  # who has lost one connection may have lost both

    def deaf(self, problem: str) -> None:
        """See Listener."""
        self._hears, self._deaf = False, problem
        self._tell_change()

    def pushed(self, pushes: Pushes, run_id: str) -> None:
        """See Listener."""
        if self.facts is None or not self.facts.proves:
            self._sink.pushed(pushes)
            return
        if run_id != self.facts.run_id:
            return  # another process's answers prove nothing of it: the heads tell what there is
        self._unproven.append((self._commander.started, pushes))
        if len(self._unproven) > MOST_UNPROVEN:
            self._unproven.clear()  # the heads will tell
        self._ask_for_proof()

    def _ask_for_proof(self) -> None:
        """Have something answered by the server, unless something will be."""
        usable = self._down is None and not self._stopping
        if self._unproven and usable and not self._proving and not self._commander.waiting:
            self._proving = True
            self.submit(PING, self._proved, patience=PROOF_SECONDS, again=True)

    def _proved(self, _reply: Any) -> None:
        self._proving = False
        self._ask_for_proof()

    def _prove(self, number: int) -> None:
        """Pipeline `number` has been answered: what had come before it was sent is in the log."""
        while self._unproven and self._unproven[0][0] < number:
            self._sink.pushed(self._unproven.popleft()[1])


def _ignore(_reply: Any) -> None:
    pass
