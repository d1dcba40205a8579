"""Credentials: what stands in files and decides who gets in, and by which certificate.

They are read as a whole or not at all, at the start and anew on SIGHUP, by the same function. It blocks.
Keys at an address are no file: a KeyFeed fetches them.
"""

import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatroom.auth.claims import Expected
from chatroom.auth.tokens import TokenTable, Verifier
from chatroom.auth.webtokens import FixedKeys, Key, WebTokens
from chatroom.config.settings import Settings
from chatroom.config.written import is_https
from chatroom.net.listeners import load_tls
from chatroom.system.files import read_file

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
    from chatroom.auth import https  # noqa: PLC0415  (slow to import, and not needed by most)
    from chatroom.auth.keyfeed import KeyFeed  # noqa: PLC0415
    from chatroom.auth.keys import key_set  # noqa: PLC0415
    from chatroom.auth.pyjwt import require_cryptography  # noqa: PLC0415

    require_cryptography()  # before a slow address is asked in vain

    async def fetch() -> tuple[Key, ...]:
        return key_set(await https.fetch(url), https.shown(url))

    return KeyFeed(fetch)


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
