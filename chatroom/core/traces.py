"""Where an unexpected exception came from, for a log.

Never its message: that may quote what a client sent, and a token among it.
"""

from traceback import format_tb, walk_tb
from types import TracebackType


def whereabouts(error: BaseException) -> dict[str, str]:
    """The `exception`'s type and its `location`, the innermost line of ours, as fields for an event.

    Of a group it is the first exception that counts.
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
    """The same in words, as the `reason` of an event that goes on without what has failed."""
    return "an error of the server's own: " + " at ".join(whereabouts(error).values())


def frames(error: BaseException) -> str:
    """The way to that exception, outermost line first, as a field `traceback` for an event."""
    return "".join(format_tb(_first(error)[1]))


def _first(error: BaseException) -> tuple[BaseException, TracebackType | None]:
    """The first exception in a group, with its traceback or else the one of what it was found in."""
    trace = error.__traceback__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        trace = error.__traceback__ or trace
    return error, trace
