"""The functions in the store, called from Python: their text and names, and the keys and arguments of a call.

Owns: the text of `library.lua`, the keys of a room, and which of a Cluster's 16,384 slots a key belongs to.

1. The name of the library carries a hash of its text, and so do the names of its functions. So two versions
   live side by side in one store, and each node calls those that it has brought.
2. A function gets all that it needs in its arguments. Numbers are written in full.
3. If a key has a brace and later a closing brace with something in between, the slot is computed from that
   part alone. So all keys of a room lie in one slot.
4. The slot is the CRC16 of XMODEM, which the standard library computes, modulo the number of slots.

Doesn't know: connections, replies, and what the functions do.
"""

import hashlib
import json
from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, assert_never
from urllib.parse import unquote

from chatroom.core.messages import Delete, Draft, Edit, Moderate, Record, RoomLog
from chatroom.engines.changes import rest_of

SLOTS = 16_384

ServerAddress = tuple[str, int]
"""The host and the port of one server."""


def slot_of(key: str) -> int:
    """The slot of `key`."""
    before, _, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    del before
    return crc_hqx((tag if closed and tag else key).encode(), 0) % SLOTS


class SlotMap:
    """Which server, by host and port, has which slots."""

    def __init__(self, ranges: Iterable[tuple[int, int, ServerAddress]]) -> None:
        """A range is its first slot, its last slot, and the server that has them."""
        self._ranges = sorted(ranges)
        self._firsts = [first for first, _, _ in self._ranges]

    @classmethod
    def read(cls, reply: Any, asked: str) -> "SlotMap":
        """The map in an answer to CLUSTER SLOTS; a server without a host is at the host that was `asked`."""
        return cls(
            (first, last, (host.decode() if host else asked, port))
            for first, last, (host, port, *_), *_ in reply
        )

    @property
    def servers(self) -> list[ServerAddress]:
        """All servers, each once."""
        return list(dict.fromkeys(server for _, _, server in self._ranges))

    def owner(self, slot: int) -> ServerAddress | None:
        """The server that has a slot, if any has."""
        at = bisect_right(self._firsts, slot) - 1
        if at >= 0 and slot <= self._ranges[at][1]:
            return self._ranges[at][2]
        return None


Command = tuple[str | bytes | int, ...]

_TEXT = files("chatroom.engines.redis").joinpath("library.lua").read_text(encoding="utf-8")
_SUFFIX = "_" + hashlib.sha256(_TEXT.encode()).hexdigest()[:8]
NAME = "chatroom" + _SUFFIX
SOURCE = f"#!lua name={NAME}\nlocal SUFFIX = '{_SUFFIX}'\n{_TEXT}"
PING: Command = ("PING",)
PROBE: Command = ("FCALL", "probe" + _SUFFIX, 0)

_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def packed(command: Command) -> bytes:
    """A command as bytes on the wire; the client library takes three times as long for it."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def line_of(names: Iterable[str]) -> str:
    """A list of names as the functions read it."""
    return _encode(list(names))


class RoomKeys(NamedTuple):
    """The keys of one room, all in one slot, and its channel."""

    meta: str
    stream: str
    cids: str
    presence: str
    channel: str
    slot: int

    @classmethod
    def of(cls, prefix: str, room: str) -> "RoomKeys":
        """The keys below `prefix`, which holds no brace."""
        base = f"{prefix}:{{{room.translate(_ESCAPES)}}}"
        return cls(f"{base}:m", f"{base}:s", f"{base}:c", f"{base}:p", base, slot_of(base))


def context_of(
    keys: RoomKeys, node: str, *, sharded: bool, keep: int | None, keep_seconds: float | None
) -> str:
    """The context for the functions that write a room: the node, and how it publishes and keeps messages."""
    kept = 0 if keep_seconds is None else max(1, int(keep_seconds * 1000))
    return _encode([node, keys.channel, "SPUBLISH" if sharded else "PUBLISH", keep or 0, kept])


def append(
    keys: RoomKeys, context: str, epoch: str, drafts: Sequence[Draft], *, known: int, ts: int
) -> Command:
    """Store drafts of one room; `known` is the last id that the node has shown, `ts` its time or 0."""
    lines = [
        _line_of(each)
        if each.act is not None or each.moderator
        else (each.username, each.text)
        if each.cid is None
        else (each.username, each.text, each.cid)
        for each in drafts
    ]
    return (
        "FCALL", "append" + _SUFFIX, 4, keys.meta, keys.stream, keys.cids, keys.presence,
        context, epoch, known, ts, _encode(lines),
    )  # fmt: skip


def _line_of(draft: Draft) -> tuple[object, ...]:
    """A draft that is more than a message."""
    act: tuple[object, ...] | bool
    match draft.act:
        case None:
            act = False
        case Edit(about, within):
            act = ("edit", about, within)
        case Delete(about, within):
            act = ("delete", about, within)
        case Moderate(action, target, seconds):
            act = ("moderate", action, target, False if seconds is None else seconds)
        case _:
            assert_never(draft.act)
    return draft.username, draft.text, _or_false(draft.cid), act, draft.moderator


def _or_false(value: object) -> object:
    """In the place of None, which a list in Lua can't hold."""
    return False if value is None else value


def read(keys: RoomKeys, epoch: str, after: int, upto: int, *, limit: int, most: int) -> Command:
    """Read upward from `after`."""
    return ("FCALL", "read" + _SUFFIX, 3, *keys[:3], epoch, after, upto, limit, most)


def history(
    keys: RoomKeys, epoch: str, before: int | None, after: int | None, upto: int, *, limit: int, most: int
) -> Command:
    """Read a page of messages, or a part of it."""
    return (
        "FCALL", "history" + _SUFFIX, 3, *keys[:3], epoch,
        0 if before is None else max(1, min(before, upto + 1)), -1 if after is None else min(after, upto),
        upto, limit, most,
    )  # fmt: skip


def moderations(keys: RoomKeys, epoch: str, upto: int, *, limit: int) -> Command:
    """Read the last actions of moderators, or a part of them."""
    return ("FCALL", "moderations" + _SUFFIX, 3, *keys[:3], epoch, upto, limit)


def head(keys: RoomKeys) -> Command:
    """Read the head of a room, and the sanctions that are in force in it."""
    return ("FCALL", "head" + _SUFFIX, 1, keys.meta)


def summaries(rooms: Sequence[RoomKeys]) -> Command:
    """Read where these rooms stand, and how many names are in them."""
    keys = [key for room in rooms for key in room[:4]]
    return ("FCALL", "summaries" + _SUFFIX, len(keys), *keys)


def open_room(keys: RoomKeys, epoch: str) -> Command:
    """Read the head and the presence of a room; a new room gets this epoch."""
    return ("FCALL", "open" + _SUFFIX, 3, keys.meta, keys.stream, keys.presence, epoch)


def who(keys: RoomKeys) -> Command:
    """Read the head and the presence of a room."""
    return ("FCALL", "who" + _SUFFIX, 2, keys.meta, keys.presence)


def renew(keys: RoomKeys, wrong: str, epoch: str) -> Command:
    """Replace the epoch that is `wrong`, unless another node has replaced it."""
    return ("FCALL", "renew" + _SUFFIX, 2, keys.meta, keys.stream, wrong, epoch)


def verify(keys: RoomKeys, known: int, ts: int) -> Command:
    """Read the head of a room, and whether it still has the last record that was shown."""
    return ("FCALL", "verify" + _SUFFIX, 3, *keys[:3], known, ts)


def heads(metas: Sequence[str]) -> Command:
    """Read the heads of these rooms, by their first keys."""
    return ("FCALL", "heads" + _SUFFIX, len(metas), *metas)


def attend(keys: RoomKeys, context: str, number: int, came: Iterable[str], went: Iterable[str]) -> Command:
    """Names came and went on this node."""
    return (
        "FCALL", "attend" + _SUFFIX, 2, keys.meta, keys.presence,
        context, number, line_of(came), line_of(went),
    )  # fmt: skip


def state(keys: RoomKeys, context: str, number: int, names: Iterable[str]) -> Command:
    """These names are here on this node, and no others."""
    return ("FCALL", "state" + _SUFFIX, 2, keys.meta, keys.presence, context, number, line_of(names))


def reap(keys: RoomKeys, context: str, nodes: Iterable[str]) -> Command:
    """These nodes are dead: remove their names."""
    return ("FCALL", "reap" + _SUFFIX, 2, keys.meta, keys.presence, context, line_of(nodes))


def prune(keys: RoomKeys, context: str) -> Command:
    """Remove messages that are too old or too many."""
    return ("FCALL", "prune" + _SUFFIX, 3, keys.meta, keys.stream, keys.cids, context)


def keep(keys: RoomKeys) -> Command:
    """This node uses the room. A room without messages lives for an hour longer."""
    return ("FCALL", "keep" + _SUFFIX, 2, keys.meta, keys.presence)


def forget(keys: RoomKeys) -> Command:
    """This node no longer uses the room."""
    return ("FCALL", "forget" + _SUFFIX, 2, keys.meta, keys.presence)


def lease(key: str, line: str, seconds: float) -> Command:
    """Take the lease of a node for so many seconds."""
    return ("FCALL", "lease" + _SUFFIX, 1, key, line, int(seconds * 1000))


# Copies


def inspect(keys: RoomKeys) -> Command:
    """Read the state of a room, also while it is being copied."""
    return ("FCALL", "inspect" + _SUFFIX, 3, *keys[:3])


def copy_begin(keys: RoomKeys, log: RoomLog) -> Command:
    """Begin to copy a room into the store, or resume the copy."""
    sanctions = [
        (action, username, by, False if until is None else str(until), reason)
        for action, username, by, until, reason in log.sanctions
    ]
    return (
        "FCALL", "copy_begin" + _SUFFIX, 3, *keys[:3],
        log.epoch, log.first, log.others, _encode(sanctions),
    )  # fmt: skip


def copy_add(keys: RoomKeys, epoch: str, last: int, records: Sequence[Record]) -> Command:
    """Add records behind the last id in the store."""
    lines = [(*each[1:4], _or_false(each.cid), _or_false(rest_of(each))) for each in records]
    return ("FCALL", "copy_add" + _SUFFIX, 3, *keys[:3], epoch, last, _encode(lines))


def copy_end(keys: RoomKeys, epoch: str, last: int) -> Command:
    """The copy of the room is complete."""
    return ("FCALL", "copy_end" + _SUFFIX, 3, *keys[:3], epoch, last)


def pattern(prefix: str) -> str:
    """The pattern that the first keys of all rooms match."""
    return "".join(f"\\{char}" if char in "\\*?[]" else char for char in prefix) + ":{*}:m"


def scan_rooms(prefix: str, cursor: bytes, keys: int) -> Command:
    """Scan so many keys of a server for the first keys of rooms."""
    return ("SCAN", cursor, "MATCH", pattern(prefix), "COUNT", keys, "TYPE", "hash")


def room_of(prefix: str, key: str) -> str:
    """The room of a first key. Raises ValueError if the key belongs to no room."""
    escaped = key.removeprefix(f"{prefix}:{{").removesuffix("}:m")
    room = unquote(escaped, errors="strict")
    if RoomKeys.of(prefix, room).meta != key:
        raise ValueError("no room's key")
    return room
