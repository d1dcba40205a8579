"""Everything that can go wrong on purpose, and the codes that say so on the wire.

    ChatroomError
    ├── CommandError     one command failed, by its sender's fault or ours; the connection stands
    │   └── Forbidden    there is no right to it
    ├── Disconnect       the connection ends with a close frame that says why
    ├── Refusal          an HTTP request, or a handshake, is answered with this status
    ├── StartError       the server can't start as asked: exit code 2 and one line
    └── EngineError      the log could not do what it was asked
        ├── Trimmed      the messages asked for are no longer kept
        ├── Replaced     the room's log is another one than asked for: its epoch has changed
        └── Unavailable  the store can't be reached or written now; the outcome of an append is unknown

1. A failed command and a disconnection are different types, so that neither can be taken for the other.
2. An error carries what the wire says of it: a `CloseCode`, an `ErrorCode`, or a status.

It doesn't know where an error is raised, nor how it is told.
"""

from enum import IntEnum, StrEnum

# The codes


class CloseCode(IntEnum):
    """Close codes this server sends (RFC 6455 section 7.4; 4xxx are ours).

    45xx tells a client not to reconnect unchanged. After all others it may, with jittered back-off.
    """

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TOKEN_EXPIRED = 4001
    TOO_FAR_BEHIND = 4008
    NOT_ALLOWED = 4503
    REMOVED = 4510


class ErrorCode(StrEnum):
    """The `code` of an `error` event: a command failed, the connection stands."""

    BAD_JSON = "bad_json"
    BAD_EVENT = "bad_event"
    BAD_DATA = "bad_data"
    TOO_LONG = "too_long"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CID_CONFLICT = "cid_conflict"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


FAULTS = frozenset({ErrorCode.BAD_JSON, ErrorCode.BAD_EVENT, ErrorCode.BAD_DATA})
"""Errors that only a broken client makes; too many in a row end the connection with 1008."""


# The errors


class ChatroomError(Exception):
    """The root of all errors that this project raises on purpose."""


class CommandError(ChatroomError):
    """A command failed; its sender gets an `error` event and may go on.

    `field` names the member of the frame that is wrong; `limit` is the number that was exceeded; `retry`
    says that the same command may succeed later; `until` is when the sanction ends that forbids it, in
    milliseconds since 1970; `cid` is the command's own, where it could be read.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        limit: int | None = None,
        retry: bool = False,
        until: int | None = None,
        cid: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.limit = limit
        self.retry = retry
        self.until = until
        self.cid = cid


class Forbidden(CommandError):
    """There is no right to the `command` in `room`."""

    def __init__(self, command: str, room: str, *, cid: str | None) -> None:
        super().__init__(ErrorCode.FORBIDDEN, "Not allowed in this room", cid=cid)
        self.command = command
        self.room = room


class Disconnect(ChatroomError):
    """The connection is to be closed with `code` and a `reason` for people."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Refusal(ChatroomError):
    """An HTTP request is refused: a status, one line of text and perhaps headers (`Retry-After`)."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class StartError(ChatroomError):
    """The server can't start as asked; the message is one line and says what to do."""


class EngineError(ChatroomError):
    """The engine could not do what it was asked."""


class Trimmed(EngineError):
    """The messages asked for are no longer kept; `first` is the lowest id that is."""

    def __init__(self, first: int) -> None:
        super().__init__(f"the oldest message kept is {first}")
        self.first = first


class Replaced(EngineError):
    """The room's log has another epoch than was asked for."""


def replaced_room() -> Disconnect:
    """The reason that is given to the members of a room whose log has been replaced."""
    return Disconnect(CloseCode.RESTART, "the room's history was replaced")


class Unavailable(EngineError):
    """The store can't be reached or written now. What was being written may be there or not."""
