"""What a server does to its process beside serving: memory, signals, and what an operator should hear.

What a server does to the process that it runs in, beside serving: memory, and the end by signals.

1. The first SIGTERM or SIGINT asks for a stop: while the server is starting, the start is given up.
2. Another one, but not within half a second of the first, ends the process at once.

Advice: what an operator should hear, in the log, once the server runs.

Not before: a server that can't start says one thing only, namely why.
"""

import gc
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from chatroom.config.settings import Settings
from chatroom.core.logevents import log_event
from chatroom.logs import flush
from chatroom.system.stdio import SECOND_SIGNAL_SECONDS, STOPS

FLUSH_SECONDS = 0.2
"""How long the last line of a process that is ended by force may take to get out."""


def tune_collector() -> None:
    """Look for cyclic garbage in small steps, nearly never in all objects: connections make hardly any.

    A look visits the objects that are new since the last one of its kind, some 10,000, since everybody waits
    for it. It visits all when a hundred million have been made that stayed for a while.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 3, 12_500)


class Stop:
    """Whether the server has been asked to stop. `starting` is what a stop gives up until it has begun."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.starting = trio.CancelScope()
        self._began = False

    def begin(self) -> None:
        """The server serves: from here on it stops by itself when it is asked to."""
        self._began = True

    def ask(self) -> None:
        """Ask for the stop."""
        self.asked.set()
        if not self._began:
            self.starting.cancel()

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """The rules of this module."""
        if not self.asked.is_set():
            await anext(signals)
            self.ask()
        counts_from = trio.current_time() + SECOND_SIGNAL_SECONDS
        async for _ in signals:
            if trio.current_time() >= counts_from:
                log_event(logging.WARNING, "ended_by_force")
                flush(FLUSH_SECONDS)
                os._exit(1)


@asynccontextmanager
async def stopping(asked: Callable[[], bool]) -> AsyncIterator[Stop]:
    """A context in which signals ask for a stop, left early where that comes before the server has begun.

    `asked` tells whether one came before.
    """
    with trio.open_signal_receiver(*STOPS) as signals:
        async with trio.open_nursery() as nursery:
            stop = Stop()
            if asked():
                stop.ask()
            nursery.start_soon(stop.watch, signals)
            with stop.starting:
                yield stop
            nursery.cancel_scope.cancel()


SPARE_DESCRIPTORS = 200
"""Beside those of the connections: listeners, files, and sockets that haven't been let in yet."""


def check_startup(settings: Settings, unbound: int) -> None:
    """Make room for the descriptors that the connections need, and warn of what won't work as asked.

    `unbound` tokens let their holders take any name; the development tokens are among them.
    """
    if settings.takes_development_tokens:
        hint = "anyone who can connect is let in under any name; see --tokens"
        log_event(logging.WARNING, "development_tokens", hint=hint)
    else:
        warn_of_unbound_tokens(unbound)
    if settings.unknown_variables:
        log_event(logging.WARNING, "unknown_variables", names=" ".join(settings.unknown_variables))
    wanted = settings.limits.connections + SPARE_DESCRIPTORS
    limit = raise_descriptor_limit(wanted)
    if limit < wanted:
        log_event(logging.WARNING, "few_descriptors", limit=limit, wanted=wanted)


def warn_of_unbound_tokens(unbound: int) -> None:
    """Warn of `unbound` tokens, if there are any."""
    if unbound:
        hint = "who holds one may take any name that no token is bound to, so a name is only a name"
        log_event(logging.WARNING, "unbound_tokens", count=unbound, hint=hint)


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or as far as the hard one lets us; the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
    except (OSError, ValueError):  # some systems have a lower limit than they say
        return soft
    return best
