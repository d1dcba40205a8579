"""What nodes tell each other through the channel of a room, decoded; and the order of a room's presence.

Owns: the format of pushes, the replies of the store's functions as values, and the pushes of presence that
came too early.

    m NODE EPOCH FIRST LAST
[[ts, username, text, cid?, rest?]…]  records were stored; see `changes.rest_of`
    p NODE EPOCH VERSION LAST
[[[username, nodes], …], […]]       names came and went on the node
    t NODE EPOCH
[username, active]                               a user types, or no longer does

1. A push that can't be read is None: a push is a hint, and any client of the store may publish.
2. A node doesn't decode its own records, since they come back as outcomes: it learns only their last id.
3. `nodes` is the number of nodes that have a name after the change. A name that came with 1, or went with 0,
   changes who is in the room.
4. The versions of a room's presence go up by one within an epoch. The next version is applied. An older one,
   or one that is known, is dropped.
5. A later version is held until the versions before it have come. Until then there is a gap; after a while
   the node reads the whole presence.

Doesn't know: where pushes come from, and what is done with them.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

from chatroom.core.messages import Change, Deleted, Edited, Message, Moderated, Record
from chatroom.core.sanctions import Action, Sanction
from chatroom.engines import changes

MOST_HELD = 1024


class Stored(NamedTuple):
    """Records of another node."""

    epoch: str
    records: list[Record]


class Own(NamedTuple):
    """Records of this node, up to `last`."""

    epoch: str
    last: int


class Presence(NamedTuple):
    """Names came or went on `node`, behind the message `last`; the room's `version` of its presence."""

    node: str
    epoch: str
    version: int
    last: int
    changes: list[Change]


class Typing(NamedTuple):
    """A user on another node types, or no longer does."""

    username: str
    active: bool


Push = Stored | Own | Presence | Typing


def read_push(data: bytes, node: str) -> Push | None:
    """The content of a push, for this `node`; None if it can't be read or isn't for it."""
    head, _, body = data.partition(b"\n")
    kind, *words = head.decode("ascii", "replace").split(" ")
    try:
        if kind == "m":
            sender, epoch, first, last = words
            if sender == node:
                return Own(epoch, int(last))
            records = records_of(int(first), _decoded(body))
            return Stored(epoch, records) if all(map(_is_whole, records)) else None
        if kind == "p":
            sender, epoch, version, last = words
            told = _changes(_decoded(body), sender == node)
            if not all(isinstance(each.username, str) for each in told):
                return None
            return Presence(sender, epoch, int(version), int(last), told)
        if kind == "t":
            sender, _ = words
            username, active = _decoded(body)
            if sender == node or not isinstance(username, str):
                return None
            return Typing(username, bool(active))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    return None


def _decoded(body: bytes) -> Any:
    """The JSON of a body, if it can be encoded again. Raises ValueError, RecursionError."""
    text = body.decode()
    value = json.loads(text)
    if "\\u" in text:  # it may be half of a character
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _is_whole(record: Record) -> bool:
    """Whether all its fields are what they are to be. Raises ValueError if a text can't be encoded."""
    return (
        type(record.ts) is int
        and type(record.username) is str
        and type(record.text) is str
        and (record.cid is None or type(record.cid) is str)
        and _is_rest_whole(record)
    )


def _is_rest_whole(record: Record) -> bool:
    match record:
        case Message(edited=None, deleted=None):
            return True
        case Message(edited=edited, deleted=deleted):
            return all(each is None or type(each) is int for each in (edited, deleted))
        case Edited(about=about, replaces=replaces):
            return type(about) is type(replaces) is int
        case Deleted(about=about, author=author, replaces=replaces):
            return type(about) is type(replaces) is int and _is_text(author)
        case Moderated(target=target, until=until):
            return _is_text(target) and (until is None or type(until) is int)
        case _:
            assert_never(record)


def _is_text(value: object) -> bool:
    """Whether it is a text; it may be out of JSON within JSON. Raises ValueError if it can't be encoded."""
    return type(value) is str and value.encode() is not None


def typing(node: str, epoch: str, username: str, *, active: bool) -> str:
    """The push for a user who types, or no longer does."""
    return f"t {node} {epoch}\n{json.dumps([username, active])}"


def records_of(first: int, lines: Sequence[Any]) -> list[Record]:
    """Dense records from the id `first` on. Raises as `changes.record_of`."""
    return [
        Message(number, line[0], line[1], line[2], line[3] if len(line) > 3 else None)
        if len(line) < 5
        else record_of(number, line)
        for number, line in enumerate(lines, first)
    ]


def record_of(number: int, line: Sequence[Any]) -> Record:
    """The record of a line; there, what there isn't is false or left out. Raises as `changes.record_of`."""
    ts, username, text, cid, rest = (*line, None, None)[:5]
    cid = None if cid is False else cid
    return changes.record_of(number, ts, username, text, cid, rest)


def sanctions_of(lines: Sequence[Any]) -> tuple[Sanction, ...]:
    """The sanctions in a reply, by name."""
    found = [
        Sanction(Action(action), username, by, until_of(until), reason)
        for action, username, by, until, reason in lines
    ]
    return tuple(sorted(found, key=lambda each: (each.username, each.action)))


def until_of(value: Any) -> int | None:
    """A time that may be unset."""
    return int(value) if value else None


def _changes(parts: Any, ours: bool) -> list[Change]:
    came, went = parts
    return [Change(name, True, nodes == 1, ours) for name, nodes in came or ()] + [
        Change(name, False, nodes == 0, ours) for name, nodes in went or ()
    ]


def read_reply(data: bytes) -> list[Any]:
    """The answer of a function; empty lists are {} in it. Raises ValueError."""
    reply = json.loads(data)
    if not (isinstance(reply, list) and reply and isinstance(reply[0], str)):
        raise ValueError("no answer of ours")
    return reply


class Versions:
    """The version of one room's presence on this node, and the pushes that wait for those before them."""

    __slots__ = ("_held", "_highest", "epoch", "known")

    def __init__(self, epoch: str, known: int) -> None:
        self.epoch = epoch
        self.known = known
        self._highest = known
        self._held: dict[int, Presence] = {}

    def add(self, push: Presence) -> list[Presence]:
        """A push has come. Returns the pushes that may be applied now, in order."""
        if push.epoch != self.epoch or push.version <= self.known:
            return []
        self.expect(push.version)
        if push.version == self.known + 1 or len(self._held) < MOST_HELD:
            self._held[push.version] = push
        ready = []
        while (following := self._held.pop(self.known + 1, None)) is not None:
            self.known += 1
            ready.append(following)
        return ready

    def expect(self, version: int) -> None:
        """The store is known to have reached `version`."""
        self._highest = max(self._highest, version)

    @property
    def gap(self) -> bool:
        """A version is missing."""
        return self._highest > self.known

    def reset(self, epoch: str, version: int) -> list[Presence]:
        """The whole presence was read as it was at `version`. Returns the held pushes that come after it."""
        held = (
            []
            if epoch != self.epoch
            else [each for number, each in sorted(self._held.items()) if number > version]
        )
        self.epoch, self.known, self._held = epoch, version, {}
        self._highest = version
        return [ready for each in held for ready in self.add(each)]
