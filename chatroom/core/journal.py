"""How every layer writes the log: an event's name and its fields, never a formatted sentence.

What reaches a log is chosen here by the caller, field by field; a token is never one of them.
"""

import logging

logger = logging.getLogger("chatroom")


def note(level: int, event: str, **fields: object) -> None:
    """Log `event` with `fields`; the formatter renders each field so that it can't forge a line."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields})
