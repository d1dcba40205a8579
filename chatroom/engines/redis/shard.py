"""One server of the store, as the Trio run sees it: jobs that are answered in time, and pushes.

Owns: the two threads of the server, the jobs under way, and the pushes that wait for their proof.

1. A job is answered once and in time: with its reply, or with Unavailable and the reason. While the server
   can't be used, it is answered at once.
2. If the server syncs each write before it answers, a push proves nothing: it may come before the sync. Such
   a push is given out when the server has answered a command that was sent after the push arrived.
3. `trouble` is the reason why no message can be stored just now. Each change of it is one line in the log.

Doesn't know: rooms, and the other servers.
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
from chatroom.engines.redis.commander import Commander, Job, Timing
from chatroom.engines.redis.connecting import Connector, ServerFacts, is_write_refusal, problem_of
from chatroom.engines.redis.library import PING, PROBE, Command, ServerAddress, slot_of
from chatroom.engines.redis.pushes import Push
from chatroom.engines.redis.subscriber import Subscriber

CHANGES = (MovedError, AskError, TryAgainError, ClusterDownError)
CHANGING = "the store's cluster is changing"
TICK = 0.1
"""Seconds between two looks at jobs whose time is up."""
PROOF_SECONDS = 3.0
MOST_UNPROVEN = 100
"""So many calls' pushes wait for their proof at most."""

Pushes = list[tuple[bytes, Push]]


class WrongServer(Unavailable):
    """Another server has the slot, or will have it in a moment; nothing was done."""


class ShardSink(Protocol):
    """The user of the shards; all its methods are called in the Trio run."""

    def subscribed(self, channels: list[bytes]) -> None:
        """These channels are subscribed to from now on; pushes before it may have been lost."""
        ...

    def pushed(self, pushes: Pushes) -> None:
        """These pushes have come."""
        ...

    def subscriptions_lost(self, shard: "Shard") -> None:
        """No channel of this server is subscribed to just now."""
        ...

    def unsubscribable(self, slots: Iterable[int]) -> None:
        """This server takes no subscriptions to channels in these slots."""
        ...

    def regained(self, shard: "Shard", *, restarted: bool) -> None:
        """The server can be used again; `restarted`: it is another process than before."""
        ...

    def looked_at(self) -> None:
        """The facts of a server were asked for again."""
        ...

    def refused(self, error: Exception) -> None:
        """The server has refused a command for a reason that is none of its states."""
        ...


class Shard:
    """One server with its two threads."""

    def __init__(
        self,
        address: ServerAddress,
        connector: Connector,
        sink: ShardSink,
        *,
        shown: str,
        node: str,
        timing: Timing,
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
        self._looked = trio.Event()  # the first try to connect has ended
        self._begun = False  # trouble is logged from now on
        self.unfit = False  # the server must not be used as it is
        self._ended = trio.Event()
        self._threads = 2
        self._down: str | None = "the store hasn't been reached yet"
        self._refusal: str | None = None
        self._forbidden: str | None = None
        self._subscriber_problem: str | None = None
        self._subscribed = True
        self._told: str | None = None
        self._unproven: deque[tuple[int, Pushes]] = deque()
        self._proving = False
        self._stopping = False
        self._failure: BaseException | None = None
        self._heard_of: str | None = None  # the process that the subscriber is connected to
        self.facts: ServerFacts | None = None
        self.reconnects = 0
        self._commander = Commander("chatroom-store", connector, self, timing)
        self._subscriber = Subscriber(
            "chatroom-pushes", connector, self, timing, node=node, ping=ping, sharded=sharded
        )

    @property
    def trouble(self) -> str | None:
        """The reason why no message can be stored just now, or no push heard."""
        return self._down or self._refusal or self._forbidden or self._subscriber_problem

    @property
    def down(self) -> str | None:
        """The reason why the server answers no command just now."""
        return self._down

    @property
    def under_way(self) -> int:
        """The number of jobs that wait for their answer."""
        return len(self._jobs)

    @property
    def silence(self) -> float:
        """Seconds since the subscriber last heard the server."""
        return max(0.0, time.monotonic() - self._subscriber.heard)

    async def wait_looked(self) -> None:
        """Wait for the end of the first try to connect; `down` tells then whether the server can be used."""
        await self._looked.wait()

    def begin(self) -> None:
        """Log trouble from now on."""
        self._begun = True
        self._tell_change()

    async def run(self) -> None:
        """Answer jobs whose time is up, until cancelled. Raises the exception that ended a thread."""
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
        """Refuse further jobs; the threads end when the waiting jobs have been done."""
        self._stopping = True
        self._commander.stop()
        self._subscriber.stop()

    async def wait_ended(self) -> None:
        """Wait for the threads: a thread inside OpenSSL would crash the process at its end."""
        await self._ended.wait()

    # Jobs

    def submit(
        self,
        command: Command,
        answered: Callable[[Any], None],
        *,
        patience: float,
        retry: bool,
        weight: int = 1,
        urgent: bool = False,
    ) -> Job:
        """Have a command done; `answered` gets its reply or Unavailable, perhaps at once.

        An `urgent` command goes before all others. For the other arguments see Job.
        """
        job = Job(command, answered, retry=retry, due=trio.current_time() + patience, weight=weight)
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

        job = self.submit(command, answered, patience=patience, retry=True, weight=weight)
        try:
            await done.wait()
        finally:
            job.given_up = True
            self._jobs.pop(job, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def send_and_forget(self, command: Command) -> None:
        """Have a command done that may be lost; its reply is dropped."""
        if self._down is None and not self._stopping:
            self._commander.submit(Job(command, _ignore, retry=False, due=0.0))

    def probe(self) -> None:
        """Find out whether messages can be stored."""
        self.submit(PROBE, self._probed, patience=1.0, retry=False)

    def _probed(self, reply: Any) -> None:
        if isinstance(reply, list):
            self.accepted()

    def accepted(self) -> None:
        """The server has accepted a message or a probe."""
        self._refusal = None
        if self._subscribed:
            self._subscriber_problem = None
        self._tell_change()

    def _answer(self, job: Job, reply: Any) -> None:
        if job in self._jobs:
            del self._jobs[job]
            job.answered(reply)

    def _understood(self, reply: Any) -> Any:
        """A reply, or Unavailable in the place of an error that the server sent."""
        if not isinstance(reply, Exception) or isinstance(reply, Unavailable):
            return reply
        if isinstance(reply, CHANGES):
            return WrongServer(CHANGING)
        problem = problem_of(reply)
        if is_write_refusal(reply):
            self._refusal = problem
            self._tell_change()
        else:
            self._sink.refused(reply)
        return Unavailable(problem)

    def _look_at_rights(self, command: Command, reply: Any) -> None:
        """Find out whether the server's user may call functions with keys.

        A probe has no keys, so only other commands show that the user may again.
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
        """See CommandListener."""
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
        """Ask the server for its facts again."""
        if self._down is None and not self._stopping:
            self._commander.look_again()

    def looked_at(self, facts: ServerFacts) -> None:
        """See CommandListener."""
        self.facts = facts
        self._sink.looked_at()

    def lost(self, problem: str, *, unfit: bool) -> None:
        """See CommandListener."""
        self._down = problem
        self.unfit = unfit
        self._looked.set()
        self._tell_change()

    def replied(self, number: int, replies: list[tuple[Job, Any]], seconds: float) -> None:
        """See CommandListener."""
        if number:
            self._observe(seconds)
            if any(not isinstance(reply, Unavailable) for _, reply in replies):
                self._prove(number)
        for job, reply in replies:
            if job in self._jobs:
                self._look_at_rights(job.command, reply)
                self._answer(job, self._understood(reply))

    def ended(self) -> None:
        """See CommandListener and PushListener."""
        self._threads -= 1
        if not self._threads:
            self._ended.set()

    def broken(self, error: BaseException) -> None:
        """See CommandListener and PushListener."""
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
        """Stop listening to a channel."""
        self._subscriber.unsubscribe(channel)

    def subscribed(self, channels: list[bytes]) -> None:
        """See PushListener."""
        self._sink.subscribed(channels)

    def ended_by_server(self, channels: list[bytes]) -> None:
        """See PushListener."""
        self._sink.unsubscribable([slot_of(channel.decode()) for channel in channels])

    def refused(self, error: Exception) -> None:
        """See PushListener."""
        if isinstance(error, MovedError):
            self._sink.unsubscribable([error.slot_id])
        elif isinstance(error, CHANGES):
            self._sink.unsubscribable(())
        elif not is_write_refusal(error):
            self._sink.refused(error)

    def subscriber_connected(self, run_id: str) -> None:
        """See PushListener. A server that loads its data takes subscriptions before it takes messages."""
        self._subscribed, self._heard_of = True, run_id
        if self._subscriber_problem is not None:
            self.probe()

    def look_after(self) -> None:
        """Reconnect the subscriber if it is connected to another process: after a failover it may still be at
        the old primary."""
        if self.facts is not None and self._down is None and self._heard_of not in (None, self.facts.run_id):
            self._heard_of = None
            self._subscriber.reconnect()

    def subscriber_lost(self) -> None:
        """See PushListener."""
        self._sink.subscriptions_lost(self)
        self.probe()  # the other connection may be lost as well

    def subscriber_down(self, problem: str) -> None:
        """See PushListener."""
        self._subscribed, self._subscriber_problem = False, problem
        self._tell_change()

    def pushed(self, pushes: Pushes, run_id: str) -> None:
        """See PushListener."""
        if self.facts is None or not self.facts.proves:
            self._sink.pushed(pushes)
            return
        if run_id != self.facts.run_id:
            return  # answers of another process prove nothing of these pushes: the heads find the messages
        self._unproven.append((self._commander.started, pushes))
        if len(self._unproven) > MOST_UNPROVEN:
            self._unproven.clear()  # the heads find the messages
        self._ask_for_proof()

    def _ask_for_proof(self) -> None:
        """Send a ping as proof, unless a command waits that serves as one."""
        usable = self._down is None and not self._stopping
        if self._unproven and usable and not self._proving and not self._commander.waiting:
            self._proving = True
            self.submit(PING, self._proved, patience=PROOF_SECONDS, retry=True)

    def _proved(self, _reply: Any) -> None:
        self._proving = False
        self._ask_for_proof()

    def _prove(self, number: int) -> None:
        """Pipeline `number` has been answered: messages whose push came before it was sent are synced."""
        while self._unproven and self._unproven[0][0] < number:
            self._sink.pushed(self._unproven.popleft()[1])


def _ignore(_reply: Any) -> None:
    pass
