"""The parts of a server that the settings choose: whose tokens count, and where messages are kept."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chatroom.adapters.engine import Engine
from chatroom.adapters.memory import MemoryEngine
from chatroom.adapters.sqlite.engine import SqliteEngine
from chatroom.listeners import Listener
from chatroom.pure.claims import Expected
from chatroom.pure.tokens import TokenTable, Verifier, Verifiers
from chatroom.pure.webtokens import FixedKeys, Key, WebTokens
from chatroom.pure.written import is_https
from chatroom.settings import NO_DATABASE, Settings
from chatroom.values.errors import StartError

if TYPE_CHECKING:
    from chatroom.adapters.keyfeed import KeyFeed


def read_tokens(path: str) -> TokenTable:
    """The token file. Raises StartError."""
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"--tokens {path} can't be read ({error.strerror}): give a TOML file") from None
    return TokenTable.parse(source, path)


def key_feed_for(settings: Settings) -> "KeyFeed | None":
    """The keys at an https address, if they are to come from one. Nothing is fetched yet."""
    url = settings.jwt_jwks
    if url is None or not is_https(url):
        return None
    from chatroom.adapters import https  # noqa: PLC0415  (slow to import, and not needed by most)
    from chatroom.adapters.keyfeed import KeyFeed  # noqa: PLC0415
    from chatroom.adapters.keys import key_set  # noqa: PLC0415

    async def fetch(algorithm: str | None) -> tuple[Key, ...]:
        return key_set(await https.fetch(url), https.shown(url), algorithm)

    return KeyFeed(fetch)


async def load_verifier(
    settings: Settings, feed: "KeyFeed | None", listeners: Sequence[Listener]
) -> Verifier:
    """Whose tokens count, by what files and addresses say now. Raises StartError.

    Keys at an address are fetched last: if anything is wrong, they are as they were.
    """
    sources: list[Verifier] = []
    if settings.tokens is not None:
        sources.append(read_tokens(settings.tokens))
    if settings.takes_development_tokens:
        _check_local(settings, listeners)
        sources.append(TokenTable.development())
    if settings.takes_web_tokens:
        keys = FixedKeys(_read_keys(settings)) if feed is None else feed
        sources.append(WebTokens(keys, Expected(settings.jwt_audience, settings.jwt_issuer), time.time))
    if feed is not None:
        await feed.load()
    return sources[0] if len(sources) == 1 else Verifiers(sources)


def _read_keys(settings: Settings) -> tuple[Key, ...]:
    """The keys of web tokens, from a file."""
    from chatroom.adapters import keys  # noqa: PLC0415  (slow to import, and not needed by most)

    if settings.jwt_secret_file is not None:
        return (keys.secret_key(settings.jwt_secret_file),)
    if settings.jwt_public_key is not None:
        return (keys.public_key(settings.jwt_public_key),)
    assert settings.jwt_jwks is not None
    return keys.key_set(keys.read_file("--jwt-jwks", settings.jwt_jwks), f"--jwt-jwks {settings.jwt_jwks}")


def _check_local(settings: Settings, listeners: Sequence[Listener]) -> None:
    """Everybody knows the development tokens."""
    if settings.insecure_dev_tokens:
        return
    for listener in listeners:
        if not listener.local:
            raise StartError(
                f"anyone could come in at {listener.name} with a development token: give --tokens or "
                "a --jwt-… option, or a loopback --host, or --insecure-dev-tokens if that is meant"
            )


def engine_for(settings: Settings) -> Engine:
    """Where messages are kept. Nothing is opened yet."""

    def new_epoch() -> str:
        return secrets.token_urlsafe(6)

    if settings.db == NO_DATABASE:
        return MemoryEngine(new_epoch)
    return SqliteEngine(settings.db, new_epoch, renew_epoch=settings.new_epoch, retain=settings.retain)
