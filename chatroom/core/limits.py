"""The limits that one client meets, in one frozen value that every part may read.

The defaults are those of the options. It doesn't know where a limit is enforced.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes or characters, times in seconds, rates per second.

    A `message_rate` of 0 lifts the pace of messages and of all other commands. `edit_seconds` is the age up
    to which an author may change a message; 0: never.
    """

    head_bytes: int = 32 * 1024
    head_line: int = 16 * 1024
    head_headers: int = 100
    head_seconds: float = 5.0
    frame_bytes: int = 64 * 1024
    frame_fragments: int = 64
    frame_seconds: float = 10.0
    text_chars: int = 4000
    edit_seconds: float = 24 * 3600.0
    message_rate: float = 5.0
    message_burst: int = 20
    command_rate: float = 200.0
    control_rate: float = 200.0
    faults: int = 10
    fault_seconds: float = 60.0
    connections: int = 10_000
    per_user: int = 20
    per_address: int = 200
    wrong_tokens: int = 20
    wrong_token_seconds: float = 60.0
    unauthenticated: int = 100
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    send_timeout: float = 10.0


MAX_UNANSWERED = 32
"""Messages of one connection that may be under way: handed in, and not yet answered."""
