"""The key feed: keys of web tokens from an https address, whose issuer changes them from time to time.

Owns when keys are fetched, and how one small document is fetched from an https address. Rules:

1. Keys are fetched at the start, then every REFRESH_SECONDS, and soon after a token named an unknown key. But
   they are never fetched within PAUSE_SECONDS of the last time, whatever strangers write into their tokens.
2. A fetch that fails leaves the keys as they were. The failure is logged once, and so is the next success.
3. There is one fetch at a time. So a slow answer never replaces one that was requested later, and a key that
   a reload has withdrawn doesn't come back.
4. The server must prove its name by the certificates that this machine trusts (`SSL_CERT_FILE` may name
   others). The proxy of the environment (`https_proxy`) is used.
5. No redirect is followed: it could lead anywhere, also out of TLS.
6. Size and time are bounded. A thread waits for the answer, and is abandoned when the time is over. There are
   never more than THREADS of them, however slowly a server goes on answering.
7. A failure is a StartError that names the address without its query, which may be a secret.

It doesn't know what a document of keys holds.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import trio

from chatroom.auth.webtokens import Key
from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event, own_fault

# Fetching

DEADLINE_SECONDS = 10.0
MAX_BYTES = 256 * 1024
THREADS = 2
_limiter = trio.CapacityLimiter(THREADS)


def shown(url: str) -> str:
    """An address as logs and errors may show it."""
    return urlsplit(url)._replace(query="").geturl()


async def fetch(url: str) -> bytes:
    """The document at `url`. Raises StartError."""
    try:
        with trio.fail_after(DEADLINE_SECONDS):
            return await trio.to_thread.run_sync(_fetch, url, abandon_on_cancel=True, limiter=_limiter)
    except trio.TooSlowError:
        reason = f"no answer within {DEADLINE_SECONDS:g} seconds"
    except _FetchError as error:
        reason = str(error)
    raise StartError(
        f"{shown(url)} gave no keys ({reason}): see whether it answers, or give a file"
    ) from None


class _FetchError(Exception):
    """The document can't be fetched or used. The message says why."""


def _fetch(url: str) -> bytes:
    from http.client import HTTPException  # noqa: PLC0415  (slow to import, and rarely needed)
    from urllib import error, request  # noqa: PLC0415  (likewise)

    class NoRedirects(request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPSHandler(context=ssl.create_default_context()),
        NoRedirects(),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    headers = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "chatroom"}
    try:
        with opener.open(request.Request(url, headers=headers), timeout=DEADLINE_SECONDS) as answer:  # noqa: S310  (https only)
            body: bytes = answer.read(MAX_BYTES + 1)
    except error.HTTPError as refusal:
        refusal.close()
        raise _FetchError(f"status {refusal.code}") from None
    except (OSError, HTTPException, ValueError) as failure:
        cause = getattr(failure, "reason", failure)
        raise _FetchError(
            getattr(cause, "verify_message", None) or str(cause) or type(cause).__name__
        ) from None
    if len(body) > MAX_BYTES:
        raise _FetchError(f"more than {MAX_BYTES // 1024} KiB")
    return body


# The feed

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
        """Have the keys fetched soon, because a token named an unknown key."""
        self._wanted.set()

    async def load(self) -> None:
        """Fetch the keys. Raises StartError, and then the keys are as they were."""
        async with self._one_at_a_time:
            self._tried = trio.current_time()
            self.keys = await self._fetch()
            self._loaded = trio.current_time()

    async def run(self) -> None:
        """Keep the keys fresh until cancelled. No error leaves, so that no chat ends for lack of keys."""
        failing = False
        self._log_keys()
        while True:
            with trio.move_on_after(RETRY_SECONDS if failing else REFRESH_SECONDS):
                await self._wanted.wait()
            await trio.sleep_until(self._tried + PAUSE_SECONDS)
            self._wanted = trio.Event()
            known = self._names()
            reason = await self._try_load()
            if reason is not None:
                if not failing:
                    log_event(logging.WARNING, "keys_not_refreshed", reason=reason)
            elif failing or self._names() != known:
                self._log_keys()
            failing = reason is not None

    async def _try_load(self) -> str | None:
        """Load the keys. Returns the reason if that fails."""
        try:
            await self.load()
        except StartError as error:
            return str(error)
        except Exception as error:
            return own_fault(error)
        return None

    def _names(self) -> list[tuple[str | None, str]]:
        return [(key.kid, key.fingerprint) for key in self.keys]

    def _log_keys(self) -> None:
        algorithms = " ".join(sorted({key.algorithm for key in self.keys}))
        log_event(logging.INFO, "keys", algorithms=algorithms, count=len(self.keys))
