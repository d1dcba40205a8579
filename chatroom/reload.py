"""Reload: on SIGHUP the credentials are read anew, and whoever is here is judged by them.

1. All of them or none: where one file is broken, everything stays as it was.
2. They are read in a thread and within a deadline: a file on a disk that doesn't answer holds up nobody. A
   thread that hangs is left to itself, and there is never more than one: until it is through, every further
   reload fails.
3. A reload is one line in the log, good or bad. Nothing that goes wrong in it ends the server.

It doesn't know what makes a token good, nor how a connection ends.
"""

import logging
from collections.abc import AsyncIterator
from ssl import SSLContext
from typing import TYPE_CHECKING, Protocol

import trio

from chatroom.advice import advise_on_tokens
from chatroom.auth.tokens import Verifier, Verifiers
from chatroom.config.settings import Settings
from chatroom.core.errors import StartError
from chatroom.core.journal import note
from chatroom.core.traces import own_fault
from chatroom.credentials import Credentials, names_of_credentials, read_credentials
from chatroom.system.systemd import NO_MANAGER, Notifier

if TYPE_CHECKING:
    from chatroom.auth.keyfeed import KeyFeed

READ_SECONDS = 10.0


class Doors(Protocol):
    """Where connections come in and are known; see Reception."""

    tls: SSLContext | None

    def review(self, verifier: Verifier) -> int:
        """Judge all connections anew; how many end by that."""


class Reload:
    """Takes over what it reads at each SIGHUP."""

    def __init__(
        self,
        settings: Settings,
        verifiers: Verifiers,
        doors: Doors,
        feed: "KeyFeed | None",
        notifier: Notifier = NO_MANAGER,
    ) -> None:
        self._settings = settings
        self._verifiers = verifiers
        self._doors = doors
        self._feed = feed
        self._notifier = notifier
        self._one_at_a_time = trio.CapacityLimiter(1)
        self.done = 0
        self.failed = 0
        self.successful = True
        """Whether the last one was; true before the first."""

    async def run(self, hangups: AsyncIterator[int]) -> None:
        """Reload at each hangup; those that come during a reload are one more."""
        async for _ in hangups:
            await self.reload()

    async def reload(self) -> None:
        """Read everything, then take it over."""
        self._notifier.reloading()
        try:
            credentials = await self._read()
            if self._feed is not None:
                await self._feed.load()  # last, since it takes over by itself
            self._take_over(credentials)
        except StartError as error:
            reason = str(error)
        except Exception as error:  # rule 3
            reason = own_fault(error)
        else:
            self.done += 1
            self.successful = True
            self._notifier.ready("Reloaded")
            return
        self.failed += 1
        self.successful = False
        note(logging.ERROR, "reload_failed", reason=reason)
        self._notifier.ready(f"Reload failed, everything is as it was: {reason}")

    async def _read(self) -> Credentials:
        """What the files say. Raises StartError."""
        try:
            with trio.fail_after(READ_SECONDS):
                return await trio.to_thread.run_sync(
                    read_credentials,
                    self._settings,
                    self._feed,
                    abandon_on_cancel=True,
                    limiter=self._one_at_a_time,
                )
        except trio.TooSlowError:
            raise StartError(f"the files could not be read within {READ_SECONDS:g} seconds") from None

    def _take_over(self, credentials: Credentials) -> None:
        unbound = self._verifiers.unbound
        self._verifiers.replace(credentials.verifiers)
        self._doors.tls = credentials.tls
        closed = self._doors.review(self._verifiers)
        if self._verifiers.unbound > unbound:
            advise_on_tokens(self._verifiers.unbound)
        note(logging.INFO, "reloaded", read=" ".join(names_of_credentials(self._settings)), closed=closed)
