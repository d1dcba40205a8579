"""From values to the JSON text of the answers by HTTP. Records are told as their frames are.

It doesn't know who asks.
"""

from collections.abc import Iterable

from chatroom.core.messages import Moderated, Page, Record
from chatroom.core.sanctions import Sanction
from chatroom.protocol import events
from chatroom.protocol.events import ListedRoom, quoted
from chatroom.websocket.framing import Pieces

NOTHING = b"{}"
"""Nothing had to be done: what was to be taken back isn't in force."""


def posted(room: str, epoch: str, message_id: int, ts: int, username: str, *, duplicate: bool) -> bytes:
    """A message is stored; `duplicate`: since an earlier request."""
    tail = ',"duplicate":true' if duplicate else ""
    return (
        f'{{"id":{message_id},"ts":{ts},"epoch":{quoted(epoch)},"room":{quoted(room)},'
        f'"username":{quoted(username)}{tail}}}'
    ).encode()


def entry(room: str, record: Record, *, duplicate: bool) -> bytes:
    """The frame of a record that is no message."""
    frame = events.record(room, record)
    return frame[:-1] + b',"duplicate":true}' if duplicate else frame


def history(page: Page, *, forward: bool) -> bytes:
    """A page of messages."""
    return events.history_data(page, forward=forward).encode()


def rooms(listed: Iterable[ListedRoom], more: bool) -> bytes:
    """One page of the list of rooms."""
    return events.rooms_data(listed, more).encode()


def members(names: Pieces) -> bytes:
    """Everyone in the room."""
    return b'{"members":%b}' % b"".join(names)


def sanctions(in_force: Iterable[Sanction], past: Iterable[Moderated] | None) -> bytes:
    """The sanctions in force, and what moderators have done."""
    return events.sanctions_data(in_force, past).encode()
