"""The parts of a server that the settings choose: who may come near, and where messages are kept."""

import secrets
from collections.abc import Iterable

from chatroom.adapters.engine import Engine
from chatroom.adapters.memory import MemoryEngine
from chatroom.adapters.sqlite.engine import SqliteEngine
from chatroom.listeners import Listener
from chatroom.settings import NO_DATABASE, Settings
from chatroom.values.errors import StartError


def check_strangers(settings: Settings, listeners: Iterable[Listener]) -> None:
    """Everybody knows the development tokens: where others could come in by them, raises StartError."""
    if settings.insecure_dev_tokens or not settings.takes_development_tokens:
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
