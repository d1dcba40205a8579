"""The parts of a server that the settings choose: whose tokens count, and where messages are kept."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from chatroom.adapters.engine import Engine
from chatroom.adapters.memory import MemoryEngine
from chatroom.adapters.sqlite.engine import SqliteEngine
from chatroom.listeners import Listener
from chatroom.pure.tokens import TokenTable, Verifier, Verifiers
from chatroom.settings import NO_DATABASE, Settings
from chatroom.values.errors import StartError


def read_tokens(path: str) -> TokenTable:
    """The token file. Raises StartError."""
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"--tokens {path} can't be read ({error.strerror}): give a TOML file") from None
    return TokenTable.parse(source, path)


def verifier_for(settings: Settings, table: TokenTable | None, listeners: Sequence[Listener]) -> Verifier:
    """Whose tokens count: the file's, and the development tokens where they may."""
    if table is not None and not settings.takes_development_tokens:
        return table
    if not settings.insecure_dev_tokens:
        for listener in listeners:
            if not listener.local:
                raise StartError(
                    f"anyone could come in at {listener.name} with a development token: give --tokens FILE, "
                    "or a loopback --host, or --insecure-dev-tokens if that is meant"
                )
    development = TokenTable.development()
    return development if table is None else Verifiers([table, development])


def engine_for(settings: Settings) -> Engine:
    """Where messages are kept. Nothing is opened yet."""

    def new_epoch() -> str:
        return secrets.token_urlsafe(6)

    if settings.db == NO_DATABASE:
        return MemoryEngine(new_epoch)
    return SqliteEngine(settings.db, new_epoch, renew_epoch=settings.new_epoch, retain=settings.retain)
