"""What `say` does: it has texts stored, each once, whatever happens to the connection or to itself.

    texts ─► recognizer: said before? ─► outbox file, synced ─► Client ─► Settled ─► outbox file

Owns one command from its first text to what came of it. Rules:

1. What earlier commands have left in the outbox is sent first, in its order.
2. A text is in the outbox before it is sent. What came of it is noted there at once, but not synced: if that
   is lost, the message is sent again under its `cid`, and the server knows it.
3. Before anything of a command is sent, the outbox has it that some of it may have been. From then on it is
   unknown what becomes of the rest, whoever doesn't let it in. Before, nothing was sent, and nothing is kept.
4. The time runs while something waits for an answer, and begins anew with each answer. What takes long
   because there is much of it isn't ended.
5. About UNSETTLED texts of a command are under way at most; further ones aren't taken meanwhile. While more
   than MOST_WAITING of other commands wait, none is taken.
6. Of an endless stream of texts the first ones are forgotten when they are settled.
7. An answer comes behind the last message. If the room has another history meanwhile, it is what is said
   there from now on.

It doesn't know where texts come from, nor how an outcome is told.
"""

import math
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

import trio

from chatroom.client.batches import (
    KEPT_SECONDS,
    Batch,
    Entry,
    Recognizer,
    batch_line,
    end_line,
    entry_line,
    sent_line,
    settled_line,
)
from chatroom.client.connection import Client
from chatroom.client.cursor import Position
from chatroom.client.events import Ended, Ending, Entered, Event, Lost, Recorded, Replaced, Settled
from chatroom.client.frames import Frame, text_of
from chatroom.client.outboxfile import OutboxFailed, OutboxFile
from chatroom.system.patterns import found_in_time

UNSETTLED = 1000
MOST_WAITING = 10_000
"""Messages that an outbox may hold for later."""
MOST_REMEMBERED = 100_000
"""Texts of one command by which it is recognized when it is tried again."""
PATTERN_SECONDS = 1.0
"""How long one message is compared with the pattern of an answer; there are patterns that take for ever."""
_SILENT = "the server doesn't answer"
_NO_ANSWER = "none came in time"
_REPLACED = "the room has another history now, and none came in time"


class Result(Enum):
    """What came of it."""

    STORED = "stored"
    REFUSED = "refused"
    """For good: some of it, or the client."""
    UNKNOWN = "unknown"
    """Nobody has answered in time."""
    FULL = "full"
    """The outbox held too much all the time; nothing was added."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command: of its `entries`, by `reason`; and the `answer` that it waited for.

    `forgotten` messages were settled before those, `refused` of them refused: the first of these with its
    number and why.
    """

    result: Result
    entries: tuple[Entry, ...] = ()
    forgotten: int = 0
    refused: int = 0
    first_refused: tuple[int, str] | None = None
    reason: str = ""
    answer: str | None = None

    @property
    def faults(self) -> list[tuple[int, str]]:
        """What was refused, as far as it isn't forgotten: the numbers of the messages, from 1 on, and why."""
        known = [(number, entry.error) for number, entry in enumerate(self.entries, self.forgotten + 1)]
        first = [] if self.first_refused is None else [self.first_refused]
        return first + [(number, error) for number, error in known if error is not None]

    @property
    def stored(self) -> int:
        """How many messages are stored."""
        return self.forgotten - self.refused + sum(entry.id is not None for entry in self.entries)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


Feed = Callable[["Sayer"], Awaitable[None]]
"""Gives the texts of a command, by `give`, and then calls `end`."""


class Sayer:
    """One command."""

    def __init__(
        self,
        outbox: OutboxFile,
        connect: Callable[[Position | None], Client],
        *,
        seconds: float,
        answer: re.Pattern[str] | None,
        now: Callable[[], int],
    ) -> None:
        """`connect` makes a client; one with a position begins behind it. `now` is in seconds since 1970.

        `seconds` is how long to wait for an answer of the server, and for a message that matches `answer`.
        Raises OutboxFailed.
        """
        self._outbox = outbox
        self._connect = connect
        self._seconds = seconds
        self._answer = answer
        self._now = now
        self._batches = outbox.read(now())
        self._waiting = {
            entry.cid: (batch, entry)
            for batch in self._batches
            for entry in batch.entries
            if not entry.settled
        }
        self._recognizer = Recognizer(self._batches)
        self._held: list[str] = []
        self._forgotten = self._refused = 0
        self._first_refused: tuple[int, str] | None = None
        self._own: Batch | None = None
        self._given = self._given_all = False
        self._finished = False
        self._client: Client | None = None
        self._entered: Entered | None = None
        self._ended: Ended | None = None
        self._reason = _SILENT
        self._behind: Position | None = None
        self._found: str | None = None
        self._scope = trio.CancelScope()
        self._progress = trio.Event()

    async def run(self, feed: Feed) -> Outcome:
        """Say what `feed` gives. What `feed` raises comes in a group, and so does an OutboxFailed from before
        anything was sent.
        """
        self._rearm()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._feed, feed)
                    nursery.start_soon(self._stay_known)
                    await self._deliver()
                    nursery.cancel_scope.cancel()
        except* OutboxFailed as failed:
            if not self._tried:
                raise
            self._reason = str(_first(failed))
        return self._outcome()

    def interrupt(self) -> None:
        """Give up now."""
        self._reason = "it was interrupted"
        self._scope.cancel()

    def kept(self, outcome: Outcome) -> list[Batch]:
        """What the outbox is to hold once `outcome` has been told."""
        told = outcome.result in (Result.STORED, Result.REFUSED)
        if self._own is not None and not told:
            self._own.time = self._now()
        return [batch for batch in self._batches if batch.entries and not (told and batch is self._own)]

    # Texts

    async def _feed(self, feed: Feed) -> None:
        """Take the texts of this command, once the outbox isn't full."""
        while self._full:
            await self._progress.wait()
        await feed(self)

    async def _stay_known(self) -> None:
        """Note now and then that the command is still at work: see Recognizer."""
        while True:
            await trio.sleep(KEPT_SECONDS / 4)
            if self._own is not None and self._own.entries:
                self._touch(self._own)

    def _touch(self, own: Batch) -> None:
        own.time = self._now()
        with suppress(OutboxFailed):  # rule 2
            self._outbox.append([batch_line(own)], sync=False)

    @property
    def _tried(self) -> bool:
        """Whether the server may have some of it."""
        return self._own is not None and self._own.sent

    @property
    def _full(self) -> bool:
        return not self._given and len(self._waiting) > MOST_WAITING

    async def give(self, texts: Sequence[str]) -> None:
        """Have further texts said. Waits while too many are under way. Raises OutboxFailed."""
        self._given = True
        for start in range(0, len(texts), UNSETTLED):
            for text in texts[start : start + UNSETTLED]:
                self._held.append(text)
                if self._own is None:
                    self._recognizer.give(text)
            if self._own is None and self._recognizer.decided:
                self._decide()
            if self._own is not None:
                self._write(self._own)
            while len(self._waiting) >= UNSETTLED:
                await self._progress.wait()

    def end(self) -> None:
        """There are no more texts. Raises OutboxFailed."""
        self._given = self._given_all = True
        self._write(self._own or self._decide())
        self._look()
        self._tell_progress()

    def _decide(self) -> Batch:
        """It is sure now whether this command is an earlier one that is tried again."""
        self._own = self._recognizer.batch()
        if self._own is None:
            self._own = Batch(uuid.uuid4().hex, self._now())
            self._batches.append(self._own)
        else:
            del self._held[: len(self._own.entries)]
            self._touch(self._own)
        return self._own

    def _write(self, own: Batch) -> None:
        """Put new texts into the outbox, and send them."""
        if len(own.entries) >= MOST_REMEMBERED:
            own = self._forget(own)
        fresh = [Entry(str(uuid.uuid4()), text) for text in self._held]
        self._held.clear()
        lines = [batch_line(own)] if fresh and not own.entries else []
        lines += [entry_line(own, entry) for entry in fresh]
        ends = self._given_all and bool(own.entries or fresh) and not own.ended
        if ends:
            lines.append(end_line(own))
        if lines:
            self._outbox.append(lines, sync=True)
        own.ended = own.ended or ends
        own.entries += fresh
        for entry in fresh:
            self._waiting[entry.cid] = (own, entry)
        self._note_sending()
        for entry in fresh:
            if self._client is not None:
                self._client.say(entry.text, entry.cid)
        if fresh:
            self._rearm()
            self._tell_progress()

    def _forget(self, own: Batch) -> Batch:
        """Go on with a batch that holds only what isn't settled, and the last one."""
        kept = [entry for entry in own.entries[:-1] if not entry.settled] + own.entries[-1:]
        for entry in own.entries[:-1]:
            if entry.settled:
                self._forgotten += 1
            if entry.error is not None:
                self._refused += 1
                self._first_refused = self._first_refused or (self._forgotten, entry.error)
        own.entries = kept
        self._outbox.replace(self._batches)
        return own

    def _note_sending(self) -> None:
        """Rule 3, if the client is in the room."""
        if self._client is None or self._entered is None:
            return
        for batch in self._batches:
            if not batch.sent and not batch.settled:
                self._outbox.append([sent_line(batch)], sync=False)
                batch.sent = True

    # At work

    async def _deliver(self) -> None:
        """Be connected as long as there is something to send, or an answer to wait for."""
        while not self._finished and self._ended is None:
            if not self._waiting and self._behind is None:
                await self._progress.wait()
                continue
            self._client = self._connect(self._behind)
            for _, entry in self._waiting.values():
                self._client.say(entry.text, entry.cid)
            ended = await self._client.run(self._handle)
            self._client = None
            if ended.ending is not Ending.STOPPED:
                self._ended = ended

    async def _handle(self, event: Event) -> None:
        match event:
            case Entered():
                self._entered = event
                self._note_sending()
                self._reason = _SILENT if self._behind is None else _NO_ANSWER
            case Settled():
                self._settle(event)
            case Lost(reason=reason):
                self._reason = reason
            case Replaced(epoch=epoch) if self._behind is not None and self._behind.epoch != epoch:
                self._behind = Position(epoch, 0 if self._entered is None else self._entered.last_id)
                self._reason = _REPLACED
            case Recorded(frame=frame, id=number) if self._behind is not None and number > self._behind.id:
                if not self._finished:  # a page of history has several that match
                    self._compare(frame)
            case _:
                pass

    def _settle(self, settled: Settled) -> None:
        batch, entry = self._waiting.pop(settled.cid)
        entry.error = settled.error
        entry.id = settled.id if settled.id is not None or settled.error is not None else 0
        entry.epoch = None if self._entered is None else self._entered.epoch
        batch.time = self._now()
        with suppress(OutboxFailed):  # rule 2; what matters is whether the outbox can be tidied up
            self._outbox.append([settled_line(entry, self._now())], sync=False)
        self._rearm()
        self._look()
        self._tell_progress()

    def _look(self) -> None:
        """Is there anything left to do?"""
        own = self._own
        if not self._given_all or self._waiting or own is None or self._finished:
            return
        last = own.entries[-1] if own.entries else None
        if self._answer is None or last is None or not last.id or self._outcome().faults:
            self._finish()
        elif self._behind is None:
            self._behind = Position(last.epoch or "", last.id)
            self._reason = _NO_ANSWER
            self._rearm()
            # Whoever was there before the message was stored sees all that comes behind it.
            if self._client is not None and (self._entered is None or last.id <= self._entered.last_id):
                self._client.stop()

    def _compare(self, frame: Frame) -> None:
        """Is it the answer?"""
        text = text_of(frame.data.get("text"))
        if frame.event != "message" or not text or self._answer is None:
            return
        found = found_in_time(self._answer, text, PATTERN_SECONDS)
        if found:
            self._found = text
            self._finish()
        elif found is None:
            self._reason = f"the pattern takes more than {PATTERN_SECONDS:.0f} s for message {frame.id}"

    def _finish(self) -> None:
        self._finished = True
        if self._client is not None:
            self._client.stop()

    def _rearm(self) -> None:
        """The time begins anew."""
        waits = self._waiting or self._behind is not None
        self._scope.deadline = trio.current_time() + self._seconds if waits else math.inf

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _outcome(self) -> Outcome:
        entries = tuple(self._own.entries) if self._own is not None else ()
        outcome = Outcome(
            Result.STORED, entries, self._forgotten, self._refused, self._first_refused, answer=self._found
        )
        if self._ended is not None:
            result = Result.UNKNOWN if self._tried else Result.REFUSED
            return replace(outcome, result=result, reason=self._ended.reason)
        if self._full:
            return Outcome(Result.FULL)
        if not self._finished:
            return replace(outcome, result=Result.UNKNOWN, reason=self._reason)
        return replace(outcome, result=Result.REFUSED) if not entries or outcome.faults else outcome
