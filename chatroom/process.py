"""What a server does to the process that it runs in, beside serving."""

import gc
import logging
import os
from collections.abc import AsyncIterator

from chatroom.logs import flush
from chatroom.values.journal import note

FLUSH_SECONDS = 0.2
"""How long the last line of a process that is ended by force may take to get out."""


def tune_collector() -> None:
    """Look for cyclic garbage less often: connections make hardly any, and each look visits all of them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)


async def end_at_once(signals: AsyncIterator[int]) -> None:
    """A second signal means now: nothing is waited for, not even our own clean-up."""
    await anext(signals)
    note(logging.WARNING, "ended_by_force")
    flush(FLUSH_SECONDS)
    os._exit(1)
