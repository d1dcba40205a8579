"""Regular expressions that somebody else's text can't keep at work for ever.

Owns the alarm that ends a search. It belongs to the process: nothing else here sets one.

It doesn't know what is looked for.
"""

import re
import signal


class _TooLong(Exception):
    """The time is over."""


def found_in_time(pattern: re.Pattern[str], text: str, seconds: float) -> bool | None:
    """Whether `pattern` is found in `text`; None if `seconds` weren't enough to tell.

    To be called in the main thread, which has the signals.
    """
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return pattern.search(text) is not None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TooLong:
        return None
    finally:
        signal.signal(signal.SIGALRM, before)


def _ring(number: int, frame: object) -> None:
    raise _TooLong
