"""Statistics: one look at the whole server, taken by `server` and shown by `metrics`.

1. A snapshot is a value: it is taken at one moment and never changes.
2. No field has a default: a number that nobody counts can't be shown as 0.
3. Labels come from small fixed sets (`Drop`, `Unready`, `REFUSALS`), never from what a client sent.

It doesn't know how a number is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from chatroom.core.errors import CloseCode
from chatroom.core.stores import StoreStatistics


class Drop(StrEnum):
    """Why the server ended a WebSocket connection.

    Those of the first group ended with a close frame: one reason per close code. Those of the second had no
    close frame, or it wasn't delivered.
    """

    PROTOCOL_ERROR = "protocol_error"
    UNSUPPORTED_DATA = "unsupported_data"
    INVALID_UTF8 = "invalid_utf8"
    POLICY = "policy"
    TOO_BIG = "too_big"
    INTERNAL_ERROR = "internal_error"
    RESTART = "restart"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  (a word, not a password)
    TOO_FAR_BEHIND = "too_far_behind"
    NOT_ALLOWED = "not_allowed"
    REMOVED = "removed"

    STALLED = "stalled"
    SILENT = "silent"
    BROKEN = "broken"

    @classmethod
    def of(cls, code: CloseCode) -> "Drop":
        """The reason that goes with a close code; 1000 is no drop and has none (KeyError)."""
        return cls[code.name]


class Unready(StrEnum):
    """Why the server isn't ready, in words for a label; `/readyz` says more."""

    DRAINING = "draining"
    COMMIT_WAITING = "commit_waiting"
    STORE = "store"


REFUSALS = (400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 417, 426, 429, 431, 500, 503, 505)
"""The HTTP statuses that requests and handshakes are refused with."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Gauges are as of now; names that end in `_total`, `drops` and `refusals` only ever grow."""

    connections: int
    """WebSockets and streams that have been let in, and requests about rooms that are carried out now."""
    handshakes: int
    """Sockets that have been accepted and not yet let in: heads in the making, plain HTTP."""
    rooms: int
    """Rooms in memory."""
    presences: int
    """Distinct usernames per room, summed over all rooms."""
    lagging_members: int
    """Members whose next message waits in the log because their socket was full."""
    tasks: int
    """Trio tasks of the whole process."""
    database_bytes: int
    """Bytes of the database on the disk, as last seen; 0 without one."""
    wal_bytes: int
    """Bytes of its write-ahead log, which holds what has not been moved into the database yet."""
    messages_total: int
    """Messages committed to the log."""
    deliveries_total: int
    """Stored messages handed to sockets: live, replayed or caught up."""
    unavailable_total: int
    """Commands that were answered `unavailable`."""
    reloads_total: int
    """Reloads that took over what they had read."""
    failed_reloads_total: int
    """Reloads that left everything as it was."""
    last_reload_successful: bool
    """Whether the last reload took over what it had read; true if there was none."""
    keys_age: float | None
    """Seconds since the keys of web tokens came from their address; None where they come from none."""
    store: StoreStatistics | None
    """The state of a store that other nodes use as well; None without one."""
    unready: frozenset[Unready]
    """Why the server isn't ready; empty if it is."""
    drops: Mapping[Drop, int]
    """WebSocket connections that the server ended, by reason; a reason that is missing has had none."""
    refusals: Mapping[int, int]
    """HTTP requests and handshakes refused, by status; likewise."""
