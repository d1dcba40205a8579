"""The keys at an https address, which their issuer changes from time to time.

1. Keys are fetched at the start, then every REFRESH_SECONDS, and soon after a token named a key that isn't
   there; but never within PAUSE_SECONDS of the last time, whatever strangers write into their tokens.
2. What fails leaves the keys as they were. It is logged once, and so is the next success.
3. One fetch at a time: an answer that was slow never replaces one that was asked for later, so that a key
   which a reload has withdrawn doesn't come back.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from chatroom.auth.webtokens import Key
from chatroom.core.errors import StartError
from chatroom.core.journal import note
from chatroom.core.traces import own_fault

REFRESH_SECONDS = 900.0
RETRY_SECONDS = 60.0
PAUSE_SECONDS = 30.0

Fetch = Callable[[], Awaitable[tuple[Key, ...]]]
"""Fetches the keys. Raises StartError, within seconds."""


class KeyFeed:
    """A source of keys; see KeySource. `load` comes first, then `run` keeps it fresh."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._wanted = trio.Event()
        self._one_at_a_time = trio.Lock()
        self._tried = 0.0
        self._loaded = 0.0
        self.keys: tuple[Key, ...] = ()

    @property
    def age(self) -> float:
        """Seconds since keys were fetched."""
        return trio.current_time() - self._loaded

    def missed(self) -> None:
        """Have the keys fetched soon."""
        self._wanted.set()

    async def load(self) -> None:
        """Fetch the keys. Raises StartError, and leaves them as they were."""
        async with self._one_at_a_time:
            self._tried = trio.current_time()
            self.keys = await self._fetch()
            self._loaded = trio.current_time()

    async def run(self) -> None:
        """Keep the keys fresh, for ever. No error leaves but cancellation: no chat ends for want of keys."""
        failing = False
        self._note_keys()
        while True:
            with trio.move_on_after(RETRY_SECONDS if failing else REFRESH_SECONDS):
                await self._wanted.wait()
            await trio.sleep_until(self._tried + PAUSE_SECONDS)
            self._wanted = trio.Event()
            known = self._names()
            reason = await self._try_load()
            if reason is not None:
                if not failing:
                    note(logging.WARNING, "keys_not_refreshed", reason=reason)
            elif failing or self._names() != known:
                self._note_keys()
            failing = reason is not None

    async def _try_load(self) -> str | None:
        """As `load`, but what went wrong is returned."""
        try:
            await self.load()
        except StartError as error:
            return str(error)
        except Exception as error:
            return own_fault(error)
        return None

    def _names(self) -> list[tuple[str | None, str]]:
        return [(key.kid, key.fingerprint) for key in self.keys]

    def _note_keys(self) -> None:
        algorithms = " ".join(sorted({key.algorithm for key in self.keys}))
        note(logging.INFO, "keys", algorithms=algorithms, count=len(self.keys))
