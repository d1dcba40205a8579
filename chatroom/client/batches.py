"""What waits to be said on behalf of commands that have ended: the outbox of `say`, as values.

    {"outbox":1,"url":"wss://chat.example","room":"ops","whose":"ci"}        for what the outbox is
    {"batch":"b1","time":1764000001}                                         what one command is to say
    {"batch":"b1","cid":"…","text":"deploy done"}                            a message, before it is sent
    {"batch":"b1","sent":true}                                               some of them may have been sent
    {"batch":"b1","end":true}                                                there are no more
    {"batch":"b1","time":1764000900}                                         the command is still at work
    {"cid":"…","id":1843,"epoch":"3lFfT4sz","time":1764000002}               what came of it: stored
    {"cid":"…","error":"…","time":1764000002}                                or refused

Owns the form of the outbox, and what a command recognizes as its own. Rules:

1. A command whose text begins with all the texts of an earlier one that has not told its end is that command
   tried again: it has the same `cid`s, so nothing is said twice. This holds as well if another command has
   sent them meanwhile, or has all of them stored and waits for more; that is remembered for KEPT_SECONDS
   after it was last at work.
2. The longest of several such ones counts, and of equal ones the first.
3. A line that isn't whole is the last thing of a command that was killed. It was not sent, and counts for
   nothing.

It doesn't know files, nor how something is sent.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chatroom.client.frames import text_of, whole_number
from chatroom.core.jsontext import decoder

FORMAT = 1
KEPT_SECONDS = 3600
LONGEST_CID = 64
_DECODER = decoder(dict)


@dataclass(slots=True)
class Entry:
    """A message of a batch, and what came of it: stored as `id` in the history `epoch`, or an `error`.

    `id` is 0 if the server says that it is stored, but not as what.
    """

    cid: str
    text: str
    id: int | None = None
    epoch: str | None = None
    error: str | None = None

    @property
    def settled(self) -> bool:
        return self.id is not None or self.error is not None


@dataclass(slots=True)
class Batch:
    """What one command was given to say.

    `ended`: it had read it all. `sent`: the server may have some of it. `time`: when it was last at work, or
    a message was settled.
    """

    name: str
    time: int
    entries: list[Entry] = field(default_factory=list)
    ended: bool = False
    sent: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing of it waits any more."""
        return all(entry.settled for entry in self.entries)


# Lines


def head_line(url: str, room: str, whose: str) -> str:
    """The first line of an outbox."""
    return _line(outbox=FORMAT, url=url, room=room, whose=whose)


def batch_line(batch: Batch) -> str:
    """A batch begins, or goes on."""
    return _line(batch=batch.name, time=batch.time)


def entry_line(batch: Batch, entry: Entry) -> str:
    """A message is to be sent."""
    return _line(batch=batch.name, cid=entry.cid, text=entry.text)


def sent_line(batch: Batch) -> str:
    """From here on messages of a batch are sent."""
    return _line(batch=batch.name, sent=True)


def end_line(batch: Batch) -> str:
    """All of a batch was read."""
    return _line(batch=batch.name, end=True)


def settled_line(entry: Entry, time: int) -> str:
    """A message is settled."""
    if entry.error is not None:
        return _line(cid=entry.cid, error=entry.error, time=time)
    return _line(cid=entry.cid, id=entry.id, epoch=entry.epoch, time=time)


def lines_of(batch: Batch) -> Iterator[str]:
    """All lines of a batch."""
    yield batch_line(batch)
    for entry in batch.entries:
        yield entry_line(batch, entry)
    if batch.sent:
        yield sent_line(batch)
    if batch.ended:
        yield end_line(batch)
    for entry in batch.entries:
        if entry.settled:
            yield settled_line(entry, batch.time)


def read_batches(lines: Iterable[str], now: int) -> list[Batch]:
    """The batches of an outbox that still count at the time `now`, in seconds since 1970."""
    batches: dict[str, Batch] = {}
    entries: dict[str, tuple[Batch, Entry]] = {}
    for line in lines:
        found = _object(line)
        name, cid, time = text_of(found.get("batch")), _cid(found), whole_number(found.get("time"))
        if name is not None and cid is None and time is not None:
            batch = batches.setdefault(name, Batch(name, time))
            batch.time = max(batch.time, time)
        elif name in batches and found.get("sent") is True:
            batches[name].sent = True
        elif name in batches and found.get("end") is True:
            batches[name].ended = True
        elif name in batches and cid is not None and (text := text_of(found.get("text"))) is not None:
            entry = Entry(cid, text)
            batches[name].entries.append(entry)
            entries[cid] = (batches[name], entry)
        elif cid in entries and time is not None:
            batch, entry = entries[cid]
            batch.time = max(batch.time, time)
            entry.id, entry.epoch = whole_number(found.get("id")), text_of(found.get("epoch"))
            entry.error = text_of(found.get("error"))
    return [
        batch
        for batch in batches.values()
        if batch.entries and not (batch.settled and now - batch.time > KEPT_SECONDS)
    ]


def _cid(found: Mapping[str, Any]) -> str | None:
    """A `cid` that the server takes: with another one a message would never be settled."""
    cid = text_of(found.get("cid"))
    return cid if cid and len(cid) <= LONGEST_CID else None


def _object(line: str) -> dict[str, Any]:
    try:
        found = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(**members: object) -> str:
    return json.dumps(members, separators=(",", ":")) + "\n"


# What was tried before


class Recognizer:
    """Finds out, text by text, whether a command is an earlier one that is tried again."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._candidates = list(batches)
        self._given = 0

    @property
    def decided(self) -> bool:
        """Whether further texts can't change which batch it is."""
        return all(len(batch.entries) <= self._given for batch in self._candidates)

    def give(self, text: str) -> None:
        """The next text of the command."""
        number = self._given
        self._given += 1
        self._candidates = [
            batch
            for batch in self._candidates
            if len(batch.entries) <= number or batch.entries[number].text == text
        ]

    def batch(self) -> Batch | None:
        """The batch that the command continues, if it has no further texts, or none that matter."""
        whole = [batch for batch in self._candidates if len(batch.entries) <= self._given]
        return max(whole, key=lambda batch: len(batch.entries), default=None)
