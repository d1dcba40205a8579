"""What of a server the settings choose: where it listens, who may come near, where messages are kept."""

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Protocol

from chatroom import __version__
from chatroom.config.settings import NO_DATABASE, NO_HOST, Settings
from chatroom.config.storeoptions import complete_address
from chatroom.config.written import MAX_NODE
from chatroom.core.errors import StartError
from chatroom.core.stores import StoreAddress
from chatroom.engines.engine import Engine
from chatroom.engines.memory import MemoryEngine
from chatroom.engines.sqlite.engine import SqliteEngine
from chatroom.net.listeners import Address, Listener, Wanted, find_addresses, open_listeners


class Place(Protocol):
    """Where people may come in: an address, or a listener on a socket that was given."""

    @property
    def local(self) -> bool:
        """Only this machine can reach it."""

    def shown(self) -> str:
        """As an operator knows it."""


def listen(settings: Settings, given: Sequence[Listener], *, secure: bool) -> list[Listener]:
    """Open what the settings ask for, beside the `given` listeners. Raises StartError.

    Given listeners stand for those of `--host` and `--port`, one for metrics for those of `--metrics-…`.
    What is refused without opening anything is refused first.
    """
    public = [listener for listener in given if not listener.metrics]
    hosts = () if public or settings.hosts == (NO_HOST,) else settings.hosts
    if not (public or hosts or settings.unix):
        raise StartError("--host none needs --unix beside it: else there is nothing to listen on")
    addresses = find_addresses(hosts)
    check_strangers(settings, [*public, *addresses])
    metrics: list[Address] = []
    if settings.metrics_port is not None and len(public) == len(given):
        metrics = find_addresses(settings.metrics_hosts or ("localhost",), "--metrics-host")
        _check_ports(settings, addresses, metrics)
    wanted = Wanted(
        addresses,
        settings.port,
        settings.unix,
        settings.unix_mode,
        metrics,
        settings.metrics_port or 0,
        shared=settings.reuse_port,
    )
    return [*given, *open_listeners(wanted, secure=secure)]


def _check_ports(settings: Settings, addresses: Iterable[Address], metrics: Iterable[Address]) -> None:
    if settings.port != settings.metrics_port or not settings.port:
        return
    if any(one.covers(other) or other.covers(one) for one, other in product(addresses, metrics)):
        raise StartError(f"--metrics-port {settings.metrics_port} is --port already: choose another one")


def check_strangers(settings: Settings, places: Iterable[Place]) -> None:
    """Everybody knows the development tokens: where others could come in by them, raises StartError."""
    if settings.insecure_dev_tokens or not settings.takes_development_tokens:
        return
    for place in places:
        if not place.local:
            raise StartError(
                f"anyone could come in at {place.shown()} with a development token: give --tokens or "
                "a --jwt-… option, or a loopback --host, or --insecure-dev-tokens if that is meant"
            )


def engine_for(settings: Settings, observe_round_trip: Callable[[float], None]) -> Engine:
    """Where messages are kept. Nothing is opened yet.

    `observe_round_trip` is told the seconds that each round trip to a store took.
    """

    def new_epoch() -> str:
        return secrets.token_urlsafe(6)

    if settings.redis is not None:
        return _shared_engine(settings.redis, settings, new_epoch, observe_round_trip)
    if settings.db == NO_DATABASE:
        return MemoryEngine(new_epoch)
    return SqliteEngine(settings.db, new_epoch, renew_epoch=settings.new_epoch, retain=settings.retain)


def _shared_engine(
    address: StoreAddress,
    settings: Settings,
    new_epoch: Callable[[], str],
    observe: Callable[[float], None],
) -> Engine:
    """The engine on a store that other nodes use as well."""
    from chatroom.engines.redis.engine import RedisEngine  # noqa: PLC0415  (not needed by most)

    return RedisEngine(
        complete_address(address, settings.redis_password_file, settings.redis_ca),
        new_epoch,
        prefix=settings.redis_prefix,
        node=settings.node or usual_node(socket.gethostname(), os.getpid()),
        incarnation=secrets.token_hex(4),
        version=__version__,
        retain=settings.retain,
        renew_epoch=settings.new_epoch,
        observe=observe,
    )


def usual_node(host: str, pid: int) -> str:
    """The name of a node that was given none: of the machine and the process."""
    end = f"-{pid}"
    visible = re.sub(r"[^!-~]", "-", host)
    return visible[: MAX_NODE - len(end)] + end
