"""Credentials: the files that decide who gets in, read at the start and again on SIGHUP.

Credentials: what stands in files and decides who gets in, and by which certificate.

They are read as a whole or not at all, at the start and anew on SIGHUP, by the same function. It blocks.
Keys at an address are no file: a KeyFeed fetches them.

Reload: on SIGHUP the credentials are read anew, and whoever is here is judged by them.

1. All of them or none: where one file is broken, everything stays as it was.
2. They are read in a thread and within a deadline: a file on a disk that doesn't answer holds up nobody. A
   thread that hangs is left to itself, and there is never more than one: until it is through, every further
   reload fails.
3. A reload is one line in the log, good or bad. Nothing that goes wrong in it ends the server.

It doesn't know what makes a token good, nor how a connection ends.
"""

import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatroom.auth.tokens import TokenTable, Verifier
from chatroom.auth.webtokens import Expected, FixedKeys, Key, WebTokens
from chatroom.config.parsers import is_https
from chatroom.config.settings import Settings
from chatroom.net.listeners import load_tls
from chatroom.system.files import read_file

if TYPE_CHECKING:
    from chatroom.auth.keyfeed import KeyFeed


import logging
from collections.abc import AsyncIterator
from ssl import SSLContext
from typing import TYPE_CHECKING, Protocol

import trio

from chatroom.auth.tokens import Verifiers
from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event, own_fault
from chatroom.process import warn_of_unbound_tokens
from chatroom.system.systemd import NO_MANAGER, Notifier

if TYPE_CHECKING:
    from chatroom.auth.keyfeed import KeyFeed


MAX_TOKENS_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files say: all whose tokens count, and the server's certificate."""

    tls: ssl.SSLContext | None
    verifiers: tuple[Verifier, ...]


def read_credentials(settings: Settings, feed: "KeyFeed | None") -> Credentials:
    """Read all files that the settings name. Raises StartError if anything is wrong with one of them.

    Web tokens are held against the keys of `feed`, where there is one.
    """
    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        tls = load_tls(settings.tls_cert, settings.tls_key)
    verifiers: list[Verifier] = []
    if settings.tokens is not None:
        verifiers.append(_read_tokens(settings.tokens))
    if settings.takes_development_tokens:
        verifiers.append(TokenTable.development())
    if settings.takes_web_tokens:
        keys = FixedKeys(_read_keys(settings)) if feed is None else feed
        expected = Expected(settings.jwt_audience, settings.jwt_issuer)
        verifiers.append(WebTokens(keys, expected, time.time))
    return Credentials(tls, tuple(verifiers))


def names_of_credentials(settings: Settings) -> list[str]:
    """The options that name what is read."""
    named = {
        "--tls-cert": settings.tls_cert,
        "--tls-key": settings.tls_key,
        "--tokens": settings.tokens,
        "--jwt-secret-file": settings.jwt_secret_file,
        "--jwt-public-key": settings.jwt_public_key,
        "--jwt-jwks": settings.jwt_jwks,
    }
    return [flag for flag, name in named.items() if name is not None]


def key_feed_for(settings: Settings) -> "KeyFeed | None":
    """The keys at an https address, if they are to come from one. Nothing is fetched yet.

    Raises StartError where such keys could not be used.
    """
    url = settings.jwt_jwks
    if url is None or not is_https(url):
        return None
    from chatroom.auth import keyfeed, keys  # noqa: PLC0415  (slow to import, and not needed by most)

    keys.require_cryptography()  # before a slow address is asked in vain

    async def fetch() -> tuple[Key, ...]:
        return keys.key_set(await keyfeed.fetch(url), keyfeed.shown(url))

    return keyfeed.KeyFeed(fetch)


def _read_tokens(path: str) -> TokenTable:
    return TokenTable.parse(read_file("--tokens", path, most=MAX_TOKENS_FILE, kind="a TOML file"), path)


def _read_keys(settings: Settings) -> tuple[Key, ...]:
    """The keys of web tokens, from a file."""
    from chatroom.auth import keys  # noqa: PLC0415  (slow to import, and not needed by most)

    if settings.jwt_secret_file is not None:
        return (keys.secret_key(settings.jwt_secret_file),)
    if settings.jwt_public_key is not None:
        return (keys.public_key(settings.jwt_public_key),)
    assert settings.jwt_jwks is not None
    return keys.key_set(
        keys.read_key_file("--jwt-jwks", settings.jwt_jwks), f"--jwt-jwks {settings.jwt_jwks}"
    )


READ_SECONDS = 10.0


class ReloadTarget(Protocol):
    """Where connections come in and are known; see Acceptor."""

    tls: SSLContext | None

    def review(self, verifier: Verifier) -> int:
        """Judge all connections anew; how many end by that."""


class Reload:
    """Takes over what it reads at each SIGHUP."""

    def __init__(
        self,
        settings: Settings,
        verifiers: Verifiers,
        target: ReloadTarget,
        feed: "KeyFeed | None",
        notifier: Notifier = NO_MANAGER,
    ) -> None:
        self._settings = settings
        self._verifiers = verifiers
        self._target = target
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
        log_event(logging.ERROR, "reload_failed", reason=reason)
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
        self._target.tls = credentials.tls
        closed = self._target.review(self._verifiers)
        if self._verifiers.unbound > unbound:
            warn_of_unbound_tokens(self._verifiers.unbound)
        log_event(
            logging.INFO, "reloaded", read=" ".join(names_of_credentials(self._settings)), closed=closed
        )
