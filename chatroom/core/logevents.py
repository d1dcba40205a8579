"""How every part writes the log, and how text and tracebacks are made safe for it.

1. A line is an event's name and its fields, never a formatted sentence. The caller chooses the fields one by
   one; a token is never one of them.
2. An escaped text can't act on a terminal, forge a line or mislead the eye.
3. Of an unexpected exception the log gets the place where it came from, never its message: that may quote
   what a client sent, and a token among it.

It doesn't know where the log goes, nor how a line is laid out.
"""

import logging
from traceback import format_tb, walk_tb
from types import TracebackType

# Events

logger = logging.getLogger("chatroom")


def log_event(level: int, event: str, **fields: object) -> None:
    """Log `event` with `fields`; the formatter renders each field so that it can't forge a line."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields})


# Text


def escape(text: str) -> str:
    """`text` with a JSON escape for each character that isn't printable. All others stay as they are.

    Not printable are control characters, every kind of line end, bidirectional marks, characters without
    width, lone surrogates, and spaces other than the ordinary one.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, with an ellipsis if there were more."""
    return text if len(text) <= limit else text[:limit] + "…"


# Exceptions


def whereabouts(error: BaseException) -> dict[str, str]:
    """The type of `error` and the innermost line of ours, as the fields `exception` and `location`.

    Of a group the first exception counts.
    """
    leaf, trace = _first(error)
    place = "unknown"
    ours = False
    for frame, line in walk_tb(trace):
        module = str(frame.f_globals.get("__name__", "?"))
        is_ours = module.partition(".")[0] == "chatroom"
        if is_ours or not ours:
            place = f"{module}:{line} in {frame.f_code.co_qualname}"
        ours = ours or is_ours
    return {"exception": type(leaf).__qualname__, "location": place}


def own_fault(error: BaseException) -> str:
    """The same in words, as a field `reason`, where the server goes on without what has failed."""
    return "an error of the server's own: " + " at ".join(whereabouts(error).values())


def frames(error: BaseException) -> str:
    """The lines that led to `error`, outermost first, as a field `traceback`."""
    return "".join(format_tb(_first(error)[1]))


def _first(error: BaseException) -> tuple[BaseException, TracebackType | None]:
    """The first exception in a group, with its own traceback or else that of the group."""
    trace = error.__traceback__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        trace = error.__traceback__ or trace
    return error, trace
