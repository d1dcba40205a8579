"""From values to the JSON text of each event that the server sends.

1. `event` and `data` stand first, extras follow, and there are no spaces.
2. These functions return UTF-8 without a frame around it.
3. An event that lists the members comes in pieces. The list among them is the object that the caller gave.
4. A `cid` is given only where the answer to a command must repeat it.

It doesn't know to whom an event goes.
"""

import re
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import NamedTuple, assert_never

from chatroom.core.errors import CommandError
from chatroom.core.limits import Limits
from chatroom.core.messages import Deleted, Edited, Message, Moderated, Page, Record
from chatroom.core.sanctions import Sanction
from chatroom.websocket.framing import Pieces


class ListedRoom(NamedTuple):
    """A room in a list: how many names are in it, and its last record's id and time (0: none)."""

    room: str
    members: int
    last_id: int
    last_ts: int


class FollowedHead(NamedTuple):
    """Where a followed room stands; `messages` doesn't count other records."""

    room: str
    epoch: str
    last_id: int
    messages: int


HISTORY_BYTES = 128 * 1024
"""About the most bytes of one page of history: its reader may be slow, and there may be thousands."""

_C1 = re.compile("[\x80-\x9f]")
"""Control characters that JSON allows unescaped and some terminals act on: U+009B does what ESC [ does."""


def quoted(text: str) -> str:
    """`text` as a JSON string. Only quotes, backslashes and control characters are escaped."""
    return _without_c1(encode_basestring(text))


def _without_c1(encoded: str) -> str:
    """JSON text with such characters escaped. It is first asked whether it has any, which is quick."""
    if encoded.isascii() or encoded.isprintable():
        return encoded
    return _C1.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded)


def _cid(cid: str | None) -> str:
    return "" if cid is None else f',"cid":{quoted(cid)}'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def record(room: str, stored: Record) -> bytes:
    """A stored record, the same bytes for every member, live or replayed."""
    if not isinstance(stored, Message):
        return _other_record(room, stored).encode()
    number, ts, username, text, cid, edited, deleted = stored
    tail = "" if cid is None else f',"cid":{encode_basestring(cid)}'
    if edited is not None or deleted is not None:
        tail = _changes(stored) + tail
    return _without_c1(
        f'{{"event":"message","data":{{"username":{encode_basestring(username)},'
        f'"text":{encode_basestring(text)}}},"room":{encode_basestring(room)},"id":{number},"ts":{ts}{tail}}}'
    ).encode()


def _changes(stored: Message) -> str:
    """Which records have changed the message."""
    edited = "" if stored.edited is None or stored.deleted is not None else f',"edited":{stored.edited}'
    return edited if stored.deleted is None else f',"deleted":{stored.deleted}'


def _other_record(room: str, stored: Edited | Deleted | Moderated) -> str:
    match stored:
        case Edited():
            event = "edited"
            data = (
                f'"id":{stored.about},"username":{quoted(stored.username)},"text":{quoted(stored.text)},'
                f'"by":{quoted(stored.username)}'
            )
        case Deleted():
            event = "deleted"
            data = f'"id":{stored.about},"username":{quoted(stored.author)},"by":{quoted(stored.username)}'
        case Moderated():
            event = "moderated"
            data = (
                f'"action":"{stored.action}","username":{quoted(stored.target)},'
                f'"by":{quoted(stored.username)}{_sanction_tail(stored.until, stored.text)}'
            )
        case _:
            assert_never(stored)
    return (
        f'{{"event":"{event}","data":{{{data}}},"room":{quoted(room)},"id":{stored.id},"ts":{stored.ts}'
        f"{_cid(stored.cid)}}}"
    )


def _sanction_tail(until: int | None, reason: str) -> str:
    end = "" if until is None else f',"until":{until}'
    return end + (f',"reason":{quoted(reason)}' if reason else "")


def sanctions(
    room: str, in_force: Iterable[Sanction], past: Iterable[Moderated] | None, cid: str | None
) -> bytes:
    """The answer to `sanctions`: those in force, and with `past` also what moderators have done."""
    data = sanctions_data(in_force, past)
    return f'{{"event":"sanctions","data":{data},"room":{quoted(room)}{_cid(cid)}}}'.encode()


def sanctions_data(in_force: Iterable[Sanction], past: Iterable[Moderated] | None) -> str:
    """The `data` of `sanctions`."""
    now = [
        f'{{"action":"{each.action}","username":{quoted(each.username)},"by":{quoted(each.by)}'
        f"{_sanction_tail(each.until, each.reason)}}}"
        for each in in_force
    ]
    tail = ""
    if past is not None:
        entries = [
            f'{{"id":{each.id},"ts":{each.ts},"action":"{each.action}","username":{quoted(each.target)},'
            f'"by":{quoted(each.username)}{_sanction_tail(each.until, each.text)}}}'
            for each in past
        ]
        tail = f',"past":[{",".join(entries)}]'
    return f'{{"sanctions":[{",".join(now)}]{tail}}}'


def rooms(listed: Iterable[ListedRoom], more: bool, cid: str | None) -> bytes:
    """The answer to `rooms`: one page of the list."""
    return f'{{"event":"rooms","data":{rooms_data(listed, more)}{_cid(cid)}}}'.encode()


def rooms_data(listed: Iterable[ListedRoom], more: bool) -> str:
    """The `data` of `rooms`."""
    items = [
        f'{{"room":{quoted(each.room)},"members":{each.members},"last_id":{each.last_id}'
        + (f',"last_ts":{each.last_ts}}}' if each.last_ts else "}")
        for each in listed
    ]
    return f'{{"rooms":[{",".join(items)}],"more":{_bool(more)}}}'


def followed(rooms: Iterable[FollowedHead], cid: str | None) -> bytes:
    """The answer to `follow`: where each of the rooms stands."""
    items = [
        f'{{"room":{quoted(each.room)},"epoch":{quoted(each.epoch)},"last_id":{each.last_id},'
        f'"messages":{each.messages}}}'
        for each in rooms
    ]
    return f'{{"event":"ack","data":{{"rooms":[{",".join(items)}]}}{_cid(cid)}}}'.encode()


def activity(room: str, last_id: int, messages: int, username: str, mentions: Iterable[str]) -> bytes:
    """Something was said in a room that the client follows; `mentions` are the names that were called."""
    called = ",".join(map(quoted, sorted(mentions)))
    return (
        f'{{"event":"activity","data":{{"room":{quoted(room)},"last_id":{last_id},"messages":{messages},'
        f'"username":{quoted(username)},"mentions":[{called}]}}}}'
    ).encode()


def _replay_fields(epoch: str, last_id: int, replay: int, recovered: bool | None) -> str:
    tail = "" if recovered is None else f',"recovered":{_bool(recovered)}'
    return f'"epoch":{quoted(epoch)},"last_id":{last_id},"replay":{replay}{tail}'


def limits_json(limits: Limits, *, unanswered: int) -> str:
    """The limits in `welcome`, those that a client can't guess, as a JSON object.

    `rate` is in messages a second, 0 if they aren't paced. `unanswered` is how many may be under way on one
    connection.
    """
    rate = limits.message_rate
    return (
        f'{{"text":{limits.text_chars},"frame":{limits.frame_bytes},'
        f'"rate":{int(rate) if rate == int(rate) else rate},"burst":{limits.message_burst},'
        f'"unanswered":{unanswered}}}'
    )


def welcome(
    room: str,
    username: str,
    members_json: Pieces,
    *,
    epoch: str,
    last_id: int,
    replay: int,
    recovered: bool | None,
    limits: str,
) -> Pieces:
    """The first event on a connection; exactly `replay` stored messages follow it.

    `limits` comes from `limits_json`.
    """
    greeting = quoted(f"Welcome to #{room}, {username}!")
    return (
        f'{{"event":"welcome","data":{{"message":{greeting},"members":'.encode(),
        *members_json,
        (
            f'}},"room":{quoted(room)},"username":{quoted(username)},'
            f'{_replay_fields(epoch, last_id, replay, recovered)},"limits":{limits}}}'
        ).encode(),
    )


def opened(
    room: str, username: str, *, epoch: str, last_id: int, replay: int, recovered: bool | None
) -> Pieces:
    """The first event of a stream; exactly `replay` stored records follow it. It tells nobody's presence."""
    greeting = quoted(f"Welcome to #{room}, {username}!")
    return (
        (
            f'{{"event":"welcome","data":{{"message":{greeting}}},"room":{quoted(room)},'
            f'"username":{quoted(username)},{_replay_fields(epoch, last_id, replay, recovered)}}}'
        ).encode(),
    )


def switched(
    room: str,
    members_json: Pieces,
    cid: str | None,
    *,
    epoch: str,
    last_id: int,
    replay: int,
    recovered: bool | None,
) -> Pieces:
    """The answer to `switch_room`; exactly `replay` stored messages of the new room follow it."""
    return (
        f'{{"event":"switched","data":{{"room":{quoted(room)}}},"members":'.encode(),
        *members_json,
        f",{_replay_fields(epoch, last_id, replay, recovered)}{_cid(cid)}}}".encode(),
    )


def joined(room: str, username: str) -> bytes:
    """The first connection of `username` has entered the room."""
    return f'{{"event":"joined","data":{{"username":{quoted(username)}}},"room":{quoted(room)}}}'.encode()


def left(room: str, username: str) -> bytes:
    """The last connection of `username` has left the room."""
    return f'{{"event":"left","data":{{"username":{quoted(username)}}},"room":{quoted(room)}}}'.encode()


def typing(room: str, username: str, active: bool) -> bytes:
    """`username` has begun or stopped typing."""
    return (
        f'{{"event":"typing","data":{{"username":{quoted(username)},"active":{_bool(active)}}},'
        f'"room":{quoted(room)}}}'
    ).encode()


def members(room: str, names: Pieces, cid: str | None = None) -> Pieces:
    """Everyone in the room: the answer to a command (with its `cid`), or sent after presence was dropped."""
    return (
        b'{"event":"members","data":{"members":',
        *names,
        f'}},"room":{quoted(room)}{_cid(cid)}}}'.encode(),
    )


def history(
    room: str, page: Page, cid: str | None, *, forward: bool = False, max_bytes: int = HISTORY_BYTES
) -> bytes:
    """One page of stored messages, ascending, of about `max_bytes` (one message at least).

    Messages that don't fit are left out where the next page continues: at the end if pages go `forward`, else
    at the beginning.
    """
    data = history_data(page, forward=forward, max_bytes=max_bytes)
    return f'{{"event":"history","data":{data},"room":{quoted(room)}{_cid(cid)}}}'.encode()


def history_data(page: Page, *, forward: bool = False, max_bytes: int = HISTORY_BYTES) -> str:
    """The `data` of `history`."""
    items: list[str] = []
    size, more = 0, page.more
    for stored in page.messages if forward else reversed(page.messages):
        item = _history_item(stored)
        size += len(item.encode())
        if items and size > max_bytes:
            more = True
            break
        items.append(item)
    if not forward:
        items.reverse()
    return f'{{"messages":[{",".join(items)}],"more":{_bool(more)}}}'


def _history_item(stored: Message) -> str:
    return (
        f'{{"id":{stored.id},"ts":{stored.ts},"username":{quoted(stored.username)},'
        f'"text":{quoted(stored.text)}{_changes(stored)}{_cid(stored.cid)}}}'
    )


def pong(cid: str | None) -> bytes:
    """The answer to `ping`."""
    return f'{{"event":"pong","data":{{}}{_cid(cid)}}}'.encode()


def ack(cid: str | None) -> bytes:
    """A command is done that has a `cid` and no other answer."""
    return f'{{"event":"ack","data":{{}}{_cid(cid)}}}'.encode()


def renewed(exp: int, cid: str | None) -> bytes:
    """The connection goes on by a token that expires at `exp`, in seconds since 1970 UTC."""
    return f'{{"event":"ack","data":{{"exp":{exp}}}{_cid(cid)}}}'.encode()


def expiring(seconds: int) -> bytes:
    """The right by which the client is connected ends in `seconds`."""
    return f'{{"event":"expiring","data":{{"in":{seconds}}}}}'.encode()


def duplicate(message_id: int, cid: str | None) -> bytes:
    """The same is stored already, under `message_id`."""
    return f'{{"event":"ack","data":{{"id":{message_id},"duplicate":true}}{_cid(cid)}}}'.encode()


def error(failure: CommandError) -> bytes:
    """A command failed."""
    field = "" if failure.field is None else f',"field":{quoted(failure.field)}'
    limit = "" if failure.limit is None else f',"limit":{failure.limit}'
    retry = ',"retry":true' if failure.retry else ""
    until = "" if failure.until is None else f',"until":{failure.until}'
    return (
        f'{{"event":"error","data":{{"message":{quoted(failure.message)}}},'
        f'"code":"{failure.code}"{field}{limit}{retry}{until}{_cid(failure.cid)}}}'
    ).encode()
