"""Credentials: the files that decide which clients are admitted, read at the start and again on SIGHUP.

Owns which files are read, and what a reload does with them. Rules:

1. The start and the reload read the files by the same function, as a whole or not at all. Where one file is
   broken, everything stays as it was.
2. Reading blocks, so a reload reads in a thread and within a deadline: a disk that doesn't answer holds up
   nobody. A thread that hangs is abandoned. There is never more than one: until it ends, every further reload
   fails.
3. A reload is one line in the log, good or bad. No error in it ends the server.
4. Keys at an address are no file: a KeyFeed fetches them.

It doesn't know what makes a token good, nor how a connection ends.
"""

import logging
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from chatroom.auth.tokens import TokenTable, Verifier, Verifiers
from chatroom.auth.webtokens import Expected, FixedKeys, Key, WebTokens
from chatroom.config.parsers import is_https
from chatroom.config.settings import Settings
from chatroom.core.errors import StartError
from chatroom.core.logevents import log_event, own_fault
from chatroom.net.listeners import load_tls
from chatroom.process import warn_of_unbound_tokens
from chatroom.system.files import read_file
from chatroom.system.systemd import NO_MANAGER, Notifier

if TYPE_CHECKING:
    from chatroom.auth.keyfeed import KeyFeed

# Reading

MAX_TOKENS_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """The contents of the files: the sources of identities, and the server's certificate."""

    tls: ssl.SSLContext | None
    verifiers: tuple[Verifier, ...]


def read_credentials(settings: Settings, feed: "KeyFeed | None") -> Credentials:
    """Read all files that the settings name. It blocks. Raises StartError if one of them is wrong.

    Web tokens are verified with the keys of `feed`, if there is one.
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
    """The options that name the files."""
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
    """The feed of keys from an https address, if the settings name one. Nothing is fetched yet.

    Raises StartError if such keys could not be used.
    """
    url = settings.jwt_jwks
    if url is None or not is_https(url):
        return None
    from chatroom.auth import keyfeed, keys  # noqa: PLC0415  (slow to import, and not needed by most)

    keys.require_cryptography()  # before a slow request whose answer could not be used

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


# Reloading

READ_SECONDS = 10.0


class ReloadTarget(Protocol):
    """What a reload changes; see Acceptor."""

    tls: ssl.SSLContext | None

    def review(self, verifier: Verifier) -> int:
        """Check the rights of all connections again. Returns how many end by that."""


class Reload:
    """Reads the credentials again at each SIGHUP, and applies them."""

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
        """Whether the last reload was; true before the first."""

    async def run(self, hangups: AsyncIterator[int]) -> None:
        """Reload at each hangup. Those that come during a reload cause one more."""
        async for _ in hangups:
            await self.reload()

    async def reload(self) -> None:
        """Read all credentials, then apply them. It never raises; what went wrong is logged."""
        self._notifier.reloading()
        try:
            credentials = await self._read()
            if self._feed is not None:
                await self._feed.load()  # last, since it applies the keys itself
            self._apply(credentials)
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
        """Read the files in a thread. Raises StartError."""
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

    def _apply(self, credentials: Credentials) -> None:
        unbound, moderators = self._verifiers.unbound, self._verifiers.moderators
        self._verifiers.replace(credentials.verifiers)
        self._target.tls = credentials.tls
        closed = self._target.review(self._verifiers)
        if self._verifiers.unbound > unbound or self._verifiers.moderators > moderators:
            warn_of_unbound_tokens(self._verifiers.unbound, self._verifiers.moderators)
        log_event(
            logging.INFO, "reloaded", read=" ".join(names_of_credentials(self._settings)), closed=closed
        )
