"""A history: what clients said, were told and saw, and a checker that finds what must not be in it.

    lost        acknowledged or seen, and not in the log afterwards
    duplicate   one message under two ids, or one id twice in a subscription
    hole        an id missing in the log, or between two that a subscription was shown
    reorder     an id shown after a larger one
    phantom     shown or kept, though nobody said it, or though its sender was told that it isn't stored
    changed     one message told under different ids, or one id with different contents; a text that isn't
                that of the last change
    stranger    shown to a connection that isn't in the room
    unrecovered a resume that was denied though nothing stood in its way, or that began at another place

1. A room is named alone, or with the epoch of its log: `room@epoch`. What is said is said in the room.
2. Clients write records in the order in which things happened to each of them; nothing else is trusted.
3. Messages are known by username and `cid`, which every client makes unique.
4. An answer that says "unknown" is no record: it says nothing.
5. Edits and deletions are said, told and shown as messages are, with `cid`s and ids of their own. They are in
   the log by what they have made of messages. Those that nobody has heard of may be missing among its ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says, and who says it.

    An edit or a deletion names the message that it is `about`; `deletes` is its kind. A message has the id of
    what `changed` it last; 0: nothing has.
    """

    username: str
    cid: str
    text: str
    about: int = 0
    deletes: bool = False
    changed: int = 0

    @property
    def original(self) -> Content:
        """As it was said first, as far as that can be seen."""
        return replace(self, text="", changed=0)

    def follows(self, earlier: Content) -> bool:
        """Whether this may be what has become of `earlier`."""
        same = self.changed > earlier.changed or (self.changed, self.text) == (earlier.changed, earlier.text)
        return same and self.original == earlier.original


@dataclass(frozen=True, slots=True)
class Said:
    """A message was sent, for the first time or again."""

    room: str
    content: Content


@dataclass(frozen=True, slots=True)
class Told:
    """The sender was told: stored under this id, or (None) certainly not stored."""

    room: str
    username: str
    cid: str
    id: int | None


@dataclass(frozen=True, slots=True)
class Entered:
    """A connection's subscription to a room began, behind `replay` messages up to `last_id`."""

    subscription: int
    room: str
    epoch: str
    last_id: int
    replay: int
    since: int | None = None
    recovered: bool | None = None


@dataclass(frozen=True, slots=True)
class Saw:
    """A message was shown in a subscription; `room` is what its frame says."""

    subscription: int
    room: str
    id: int
    content: Content


MOST_RECOVERED = 500
"""The most messages that a resume brings back."""

Record = Said | Told | Entered | Saw
Log = Mapping[str, Sequence[tuple[int, Content]]]
"""All that is kept of each room in the end, as it was read."""


@dataclass(slots=True)
class _Subscription:
    room: str
    next: int


@dataclass(slots=True)
class Checker:
    """Takes records as they come, and judges them against the log whenever asked."""

    faults: list[str] = field(default_factory=list)
    _said: dict[tuple[str, str, str], Content] = field(default_factory=dict)
    _refused: set[tuple[str, str, str]] = field(default_factory=set)
    _subscriptions: dict[int, _Subscription] = field(default_factory=dict)
    _epochs: dict[str, str] = field(default_factory=dict)
    _ids: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _contents: dict[tuple[str, int], Content] = field(default_factory=dict)

    def apply(self, record: Record) -> None:
        """One more thing that happened."""
        match record:
            case Said(room, content):
                self._said[room.partition("@")[0], content.username, content.cid] = content
            case Told(room, username, cid, None):
                self._refused.add((room, username, cid))
            case Told(room, username, cid, number):
                self._identify((room, username, cid), number)
            case Entered():
                self._enter(record)
            case Saw():
                self._see(record)

    def _was_said(self, room: str, content: Content) -> bool:
        said = self._said.get((room.partition("@")[0], content.username, content.cid))
        if said is None or said.original != content.original:
            return False
        if content.changed or (content.about and not content.text):
            return True  # its text is another one by now, or gone
        return said.text == content.text

    def _fault(self, kind: str, what: object) -> None:
        self.faults.append(f"{kind}: {what}")

    def _identify(self, message: tuple[str, str, str], number: int | None) -> None:
        assert number is not None
        if self._ids.setdefault(message, number) != number:
            self._fault("changed", f"{message} is {self._ids[message]} and {number}")

    def _enter(self, entered: Entered) -> None:
        first = entered.last_id - entered.replay + 1
        same = self._epochs.setdefault(entered.room, entered.epoch) == entered.epoch
        self._epochs[entered.room] = entered.epoch
        if entered.since is not None and same:
            in_reach = entered.last_id - entered.since <= MOST_RECOVERED
            if entered.recovered != in_reach or (in_reach and first != entered.since + 1):
                self._fault("unrecovered", entered)
        self._subscriptions[entered.subscription] = _Subscription(entered.room, first)

    def _see(self, saw: Saw) -> None:
        subscription = self._subscriptions.get(saw.subscription)
        if subscription is None or subscription.room != saw.room:
            self._fault("stranger", saw)
            return
        if saw.id == subscription.next - 1:
            self._fault("duplicate", saw)
        elif saw.id < subscription.next:
            self._fault("reorder", saw)
        elif saw.id > subscription.next:
            self._fault("hole", f"{subscription.next} before {saw}")
        subscription.next = max(subscription.next, saw.id + 1)
        self._know(saw.room, saw.id, saw.content)

    def _know(self, room: str, number: int, content: Content) -> None:
        """This has been shown under this id."""
        known = self._contents.setdefault((room, number), content)
        same = known.changed != content.changed or known.about or known.text == content.text
        if known.original != content.original or not same:
            self._fault("changed", f"{number} in {room} is {known} and {content}")
        elif content.changed > known.changed:
            self._contents[room, number] = content
        if not self._was_said(room, content):
            self._fault("phantom", f"{content} in {room} was never said")
        self._identify((room, content.username, content.cid), number)

    def judge(self, log: Log) -> list[str]:
        """Everything wrong up to now, the log being this; empty if nothing is."""
        faults, self.faults = self.faults, []
        changes = self._changes()
        for room, messages in log.items():
            self._judge_room(room, messages, changes)
        kept = {(room, number): content for room, messages in log.items() for number, content in messages}
        for (room, number), content in self._contents.items():
            if room not in log or content.about:
                continue
            found = kept.get((room, number))
            if found is None or not found.follows(content):
                self._fault("lost", f"{number} in {room} was seen as {content}")
        for (room, username, cid), number in self._ids.items():
            if room not in log:
                continue  # of an epoch that is over
            if (room, number) in changes:  # it is judged by the message that it has changed
                if (room, username, cid) in self._refused:
                    self._fault("phantom", f"{number} in {room} is {cid}, which was told not to be")
                continue
            found = kept.get((room, number))
            if found is None or (found.username, found.cid) != (username, cid):
                self._fault("lost", f"{number} in {room} was told to {username} for {cid}")
        faults, self.faults = faults + self.faults, faults
        return faults

    def _changes(self) -> dict[tuple[str, int], Content]:
        """The edits and deletions that anybody has heard of, by room and id, as they were said."""
        found = {}
        for (room, username, cid), number in self._ids.items():
            said = self._said.get((room.partition("@")[0], username, cid))
            if said is not None and said.about:
                found[room, number] = said
        return found

    def _judge_room(
        self,
        room: str,
        messages: Iterable[tuple[int, Content]],
        changes: Mapping[tuple[str, int], Content],
    ) -> None:
        seen: dict[tuple[str, str], int] = {}
        last: dict[int, int] = {}  # by message: the id of what has changed it last
        for of, number in sorted(changes):
            if of == room:
                about = changes[of, number].about
                if (before := last.get(about)) is not None and changes[of, before].deletes:
                    self._fault("reorder", f"{number} in {room} changes what {before} has deleted")
                last[about] = number
        expected = 1
        for number, content in messages:
            while (room, expected) in changes:
                expected += 1
            if number != expected:
                self._fault("hole", f"{number} stands at {expected} in the log of {room}")
            expected = number + 1
            mark = (content.username, content.cid)
            if mark in seen:
                self._fault("duplicate", f"{mark} is {seen[mark]} and {number} in the log of {room}")
            seen[mark] = number
            if not self._was_said(room, content):
                self._fault("phantom", f"{content} in the log of {room} was never said")
            if (room, *mark) in self._refused:
                self._fault("phantom", f"{mark} is in the log of {room}, and was told not to be")
            self._judge_change(room, number, content, last.get(number, 0), changes)

    def _judge_change(
        self,
        room: str,
        number: int,
        content: Content,
        last: int,
        changes: Mapping[tuple[str, int], Content],
    ) -> None:
        """Whether a message is what its last change has made of it."""
        if content.changed != last:
            kind = "lost" if content.changed < last else "phantom"
            self._fault(kind, f"{number} in {room} was changed by {last}, and is {content}")
        elif last:
            change = changes[room, last]
            if content.text != ("" if change.deletes else change.text):
                self._fault("changed", f"{number} in {room} was changed by {change}, and is {content}")
            if change.username != content.username:
                self._fault("changed", f"{number} in {room} was changed by {change}, and is not its own")
