"""The numbers and words that stand on the wire when something ends or fails."""

from enum import IntEnum, StrEnum


class CloseCode(IntEnum):
    """Close codes this server sends (RFC 6455 section 7.4; 4xxx are ours).

    45xx tells a client not to reconnect unchanged; after all others it may, with jittered back-off.
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


class ErrorCode(StrEnum):
    """The `code` of an `error` event: a command failed, the connection stands."""

    BAD_JSON = "bad_json"
    BAD_EVENT = "bad_event"
    BAD_DATA = "bad_data"
    TOO_LONG = "too_long"
    FORBIDDEN = "forbidden"
    CID_CONFLICT = "cid_conflict"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


FAULTS = frozenset({ErrorCode.BAD_JSON, ErrorCode.BAD_EVENT, ErrorCode.BAD_DATA})
"""Errors that only a broken client makes; too many in a row end the connection with 1008."""
