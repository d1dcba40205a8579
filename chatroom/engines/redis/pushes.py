"""What nodes tell each other through the channel of a room, and the replies of the store's functions,
decoded.

    m NODE EPOCH FIRST LAST\n[[ts, username, text, cid?], …]       messages were stored
    p NODE EPOCH VERSION LAST\n[[[username, nodes], …], […]]       names came and went on the node
    t NODE EPOCH\n[username, active]                               somebody types

1. Whatever can't be read is None: a push is a hint, and anybody may publish.
2. One's own messages are not decoded, since they come back as outcomes: only their number is told.
3. `nodes` is on how many nodes a name is after the change. 1 for a name that came, or 0 for one that went,
   changes who is in the room.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from chatroom.core.messages import Message
from chatroom.core.presence import Change


class Stored(NamedTuple):
    """Messages of another node."""

    epoch: str
    messages: list[Message]


class Own(NamedTuple):
    """Messages of this node, up to `last`."""

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
    """Somebody on another node types, or no longer does."""

    username: str
    active: bool


Push = Stored | Own | Presence | Typing


def read_push(data: bytes, node: str) -> Push | None:
    """What a push says, for this `node`."""
    head, _, body = data.partition(b"\n")
    kind, *words = head.decode("ascii", "replace").split(" ")
    try:
        if kind == "m":
            sender, epoch, first, last = words
            if sender == node:
                return Own(epoch, int(last))
            messages = messages_of(int(first), _decoded(body))
            return Stored(epoch, messages) if all(map(_is_whole, messages)) else None
        if kind == "p":
            sender, epoch, version, last = words
            changes = _changes(_decoded(body), sender == node)
            if not all(isinstance(each.username, str) for each in changes):
                return None
            return Presence(sender, epoch, int(version), int(last), changes)
        if kind == "t":
            sender, _ = words
            username, active = _decoded(body)
            if sender == node or not isinstance(username, str):
                return None
            return Typing(username, bool(active))
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    return None


def _decoded(body: bytes) -> Any:
    """The JSON of a body, if it can be written again. Raises ValueError, RecursionError."""
    text = body.decode()
    value = json.loads(text)
    if "\\u" in text:  # it may be half of a character
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _is_whole(message: Message) -> bool:
    return (
        type(message.ts) is int
        and type(message.username) is str
        and type(message.text) is str
        and (message.cid is None or type(message.cid) is str)
    )


def typing(node: str, epoch: str, username: str, *, active: bool) -> str:
    """The push that says that somebody types."""
    return f"t {node} {epoch}\n{json.dumps([username, active])}"


def messages_of(first: int, lines: Sequence[Any]) -> list[Message]:
    """Dense messages from the id `first` on."""
    return [
        Message(number, line[0], line[1], line[2], line[3] if len(line) > 3 else None)
        for number, line in enumerate(lines, first)
    ]


def _changes(parts: Any, ours: bool) -> list[Change]:
    came, went = parts
    return [Change(name, True, nodes == 1, ours) for name, nodes in came or ()] + [
        Change(name, False, nodes == 0, ours) for name, nodes in went or ()
    ]


def read_reply(data: bytes) -> list[Any]:
    """What a function has answered; empty lists are {} in it. Raises ValueError."""
    reply = json.loads(data)
    if not (isinstance(reply, list) and reply and isinstance(reply[0], str)):
        raise ValueError("no answer of ours")
    return reply
