"""The process of a server: its garbage collector, its signals, its descriptors, and startup checks.

Owns the request to stop, and the warnings that the log gets at the start. Rules:

1. The first SIGTERM or SIGINT asks for a stop. While the server is starting, the start is given up.
2. Another one, but not within half a second of the first, ends the process at once.
3. Warnings are logged once the server runs, not before: a server that can't start says only why.

It doesn't know what a stop does.
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
"""How long a process that is ended by force waits until its last log line is written."""


def tune_collector() -> None:
    """Have the garbage collector work in small steps: connections make hardly any cyclic garbage.

    All clients wait while it runs. So a step visits only objects that are new since the last one, some
    10,000. It visits all objects only after a hundred million have been made that stayed for a while.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 3, 12_500)


class Stop:
    """The request to stop. A stop before `begin` cancels `starting`."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.starting = trio.CancelScope()
        self._began = False

    def begin(self) -> None:
        """The server serves. From here on it waits for `asked` itself."""
        self._began = True

    def ask(self) -> None:
        """Ask for the stop, and cancel a start that is under way."""
        self.asked.set()
        if not self._began:
            self.starting.cancel()

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Take the signals, by rules 1 and 2."""
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
    """A context in which signals ask for a stop. A stop before the server has begun leaves it early.

    `asked` tells whether a signal came earlier.
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


# Startup checks

SPARE_DESCRIPTORS = 200
"""Descriptors beside those of the connections: listeners, files and pending handshakes."""


def check_startup(settings: Settings, unbound: int, moderators: int) -> None:
    """Raise the limit of descriptors, and log a warning for each setting that won't work as asked.

    `unbound` is the number of tokens that let their holders take any name, development tokens included.
    `moderators` is the number of those that are known to have the right `m` in some room.
    """
    if settings.takes_development_tokens:
        hint = "anyone who can connect is let in under any name; see --tokens"
        log_event(logging.WARNING, "development_tokens", hint=hint)
    else:
        warn_of_unbound_tokens(unbound, moderators)
    if settings.unknown_variables:
        log_event(logging.WARNING, "unknown_variables", names=" ".join(settings.unknown_variables))
    wanted = settings.limits.connections + SPARE_DESCRIPTORS
    limit = raise_descriptor_limit(wanted)
    if limit < wanted:
        log_event(logging.WARNING, "few_descriptors", limit=limit, wanted=wanted)


def warn_of_unbound_tokens(unbound: int, moderators: int) -> None:
    """Log a warning if there are `unbound` tokens; they make a joke of what moderators do."""
    if unbound:
        hint = "who holds one may take any name that no token is bound to, so a name is only a name"
        if moderators:
            hint += ", and who is muted or banned comes back under another one: bind each token to a username"
        log_event(logging.WARNING, "unbound_tokens", count=unbound, hint=hint)


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or to the hard limit. Returns the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
    except (OSError, ValueError):  # some systems have a lower limit than they report
        return soft
    return best
