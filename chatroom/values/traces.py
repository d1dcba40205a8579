"""Where an unexpected exception came from, for a log; not its message, which may quote a client."""

from traceback import walk_tb


def whereabouts(error: BaseException) -> dict[str, str]:
    """The `exception`'s type and its `location` (the innermost line of ours), as fields for a log event.

    Of a group it is the first exception that counts.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = "unknown"
    ours = False
    for frame, line in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "?"))
        is_ours = module.partition(".")[0] == "chatroom"
        if is_ours or not ours:
            place = f"{module}:{line} in {frame.f_code.co_qualname}"
        ours = ours or is_ours
    return {"exception": type(error).__qualname__, "location": place}
