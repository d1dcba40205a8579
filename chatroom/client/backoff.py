"""How long a client waits before it connects again.

Owns the pauses. Rules:

1. Full jitter: a pause is anything between nothing and a bound that doubles with each failure. So clients
   that have lost their server together come back one by one, and the first pause is short.
2. What the server asks for (`Retry-After`) is waited for before the pause begins, but never longer than
   MOST_ASKED: nobody waits for a mistake of a proxy until tomorrow.
3. A connection counts as a good one only if it has lasted, or has brought something: a server that lets in
   and drops again is spared.

It doesn't know a clock, nor chance: both are given.
"""

import re
from collections.abc import Callable

BOUND = 30.0
"""The longest pause that a client makes by itself, in seconds."""
LASTED = 10.0
"""Seconds after which a connection was a good one."""
MOST_ASKED = 3600.0
_SECONDS = re.compile(r"[0-9]{1,9}")


def retry_after(header: str | None) -> float | None:
    """The seconds that a `Retry-After` asks for (RFC 9110, 10.2.3); None if it names none, as a date."""
    return float(header) if header is not None and _SECONDS.fullmatch(header) else None


class Backoff:
    """The pauses between the tries of one client."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """`chance` gives numbers from 0 to 1, all equally likely."""
        self._chance = chance
        self._failures = 0

    def ended(self, seconds: float, *, useful: bool) -> None:
        """A connection has ended that was there for `seconds`; `useful`: it has brought something."""
        if useful or seconds >= LASTED:
            self._failures = 0

    def pause(self, asked: float = 0.0) -> float:
        """Seconds until the next try, behind the `asked` ones of the server."""
        bound = min(BOUND, 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        return min(max(asked, 0.0), MOST_ASKED) + self._chance() * bound
