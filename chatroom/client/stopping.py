"""The signals by which a client is asked to end.

1. A signal that is ignored stays so: by `nohup`, and in the background of a script, somebody wants that.

It doesn't know what a stop does.
"""

import signal
from collections.abc import Callable

import trio


async def call_at_signals(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at each SIGTERM, SIGINT and SIGHUP, until it is cancelled. Started when none is missed."""
    ignorable = [
        number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]
    with trio.open_signal_receiver(signal.SIGTERM, *ignorable) as signals:
        task_status.started()
        async for _ in signals:
            stop()
