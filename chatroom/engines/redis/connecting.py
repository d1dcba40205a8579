"""Connections to one server of a store: made, checked before they are used, and their errors in words.

Owns: how to connect, what the server must be and have, and the sentences for the operator.

1. Each connection has time-outs for connecting and for every answer, the handshake's included. Nothing is
   retried here: a user of a connection drops it on any doubt.
2. The certificate is checked, with the name of the host.
3. Before a connection is used, the server is asked for its version and its settings, and our functions are
   loaded if they are missing.
4. No text that is made here contains the password.

Doesn't know: threads, rooms, and which commands are sent.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from redis import exceptions as refused
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from chatroom.core.stores import StoreAddress, StoreKind
from chatroom.engines.redis import library
from chatroom.engines.redis.library import Command, packed

MIN_VALKEY, MIN_REDIS = (7, 2), (7, 0)

_BY_TYPE: tuple[tuple[type[Exception], str], ...] = (
    (refused.BusyLoadingError, "the store is loading its data"),
    (refused.AuthenticationError, "the store refuses the user or the password"),
    (refused.NoPermissionError, "the store does not let its user do what is needed"),
    (refused.ReadOnlyError, "the store is read-only (a replica)"),
    (refused.OutOfMemoryError, "the store's memory is full"),
    (refused.MasterDownError, "the store has lost its primary"),
    (refused.ClusterDownError, "the store's cluster is down"),
    (refused.TimeoutError, "the store does not answer"),
)
_BY_WORD = {
    "NOREPLICAS": "too few of the store's replicas are connected",
    "MISCONF": "the store can't write to its disk",
    "BUSY": "the store is busy with a script",
    "UNKILLABLE": "the store is busy with a script",
}
_OTHER_WORDS = {"WRONGTYPE": "keys with the prefix belong to something else: choose another --redis-prefix"}
_UNREACHABLE = "the store can't be reached"
WRITE_REFUSED = (refused.OutOfMemoryError, refused.ReadOnlyError)


class StoreProblem(Exception):
    """The store can't be used as it is; the text says why, to the operator."""


def problem_of(error: Exception) -> str:
    """The meaning of an error of the client library, in words for the operator."""
    if isinstance(error, StoreProblem):
        return str(error)
    for kind, words in _BY_TYPE:
        if isinstance(error, kind):
            return words
    if isinstance(error, refused.ConnectionError | OSError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "the store's certificate can't be verified"
        if "max number of clients" in str(error):
            return "the store has too many clients"
        return _UNREACHABLE
    if not isinstance(error, refused.ResponseError):
        return "what answers there is no Valkey or Redis"
    word = str(error).partition(" ")[0]
    return _BY_WORD.get(word) or _OTHER_WORDS.get(word) or f"the store refuses a command ({word[:40]!r})"


def is_missing_function(error: Exception) -> bool:
    """Our functions aren't in the store: nothing has been done."""
    return isinstance(error, refused.ResponseError) and "Function not found" in str(error)


def is_write_refusal(error: Exception) -> bool:
    """The store accepts no message just now; nothing has been done."""
    return isinstance(error, WRITE_REFUSED) or str(error).partition(" ")[0] in _BY_WORD


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server has told about itself.

    `run_id`: the id of its process, another one after each start. `proves`: it syncs each write before it
    answers. `risks`: settings by which acknowledged messages may be lost. `fault`: why a new connection must
    not use it.
    """

    run_id: str
    proves: bool
    risks: tuple[str, ...]
    fault: str | None


class Connector:
    """Makes connections to one server."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        patience: float,
        where: Callable[[], tuple[str, int]] | None = None,
    ) -> None:
        """`patience`: seconds to connect, and for each answer. `where` names the server before each try."""
        self._address = address
        self._patience = patience
        self._where = where

    def connect(self) -> AbstractConnection:
        """A connection that is logged in. Raises StoreProblem, and the errors of the client library."""
        address = self._address
        settings: dict[str, Any] = {
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "socket_timeout": self._patience,
            "socket_connect_timeout": self._patience,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            "client_name": "chatroom",
        }
        kind: Any  # the constructors are typed by halves
        if address.unix is not None:
            kind = UnixDomainSocketConnection
            settings["path"] = address.unix
        else:
            kind = SSLConnection if address.tls else Connection
            settings["host"], settings["port"] = address.hosts[0] if self._where is None else self._where()
            if address.tls:
                settings["ssl_ca_certs"] = address.ca
        connection = kind(**settings)
        connection.connect()
        return cast("AbstractConnection", connection)

    def identify(self, connection: AbstractConnection) -> str:
        """The id of the server's process."""
        return _info(ask(connection, ("INFO", "server"))).get("run_id", "")

    def prepare(self, connection: AbstractConnection) -> ServerFacts:
        """Check the server, and load our functions into it. Raises as `connect`."""
        facts = look(connection)
        if facts.fault is not None:
            raise StoreProblem(facts.fault)
        load_functions(connection)
        return facts


def look(connection: AbstractConnection) -> ServerFacts:
    """Ask a server for its settings. A setting that it doesn't tell counts as a safe one."""
    info = _info(ask(connection, ("INFO",)))
    settings = _settings(connection)
    aof, always = info.get("aof_enabled") == "1", settings.get("appendfsync", "always") == "always"
    return ServerFacts(info.get("run_id", ""), aof and always, _risks(info, settings), _fault(info, settings))


def ask(connection: AbstractConnection, command: Command) -> Any:
    """One command and its answer."""
    connection.send_packed_command([packed(command)], check_health=False)
    return connection.read_response(disable_decoding=True)


def load_functions(connection: AbstractConnection) -> None:
    """Load our functions into the store; those of another version stay.

    A replica is always refused. A server that accepts no writes for another reason may have them already.
    """
    try:
        ask(connection, ("FUNCTION", "LOAD", library.SOURCE))
    except refused.NoPermissionError:
        raise StoreProblem("the store's user may not load functions (FUNCTION LOAD)") from None
    except refused.ReadOnlyError:
        raise
    except refused.ResponseError as error:
        if is_write_refusal(error):
            _find_functions(connection, error)
        elif "already exists" not in str(error):
            raise


def _find_functions(connection: AbstractConnection, refusal: Exception) -> None:
    """Raise the refusal to load our functions, unless the server has them already."""
    try:
        ask(connection, library.PROBE)
    except refused.ResponseError as error:
        if is_missing_function(error):
            raise refusal from None


def _info(data: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in data.decode("utf-8", "replace").splitlines())
    return {name: value for name, separator, value in lines if separator}


def _settings(connection: AbstractConnection) -> dict[str, str]:
    """The server's settings; empty if it doesn't tell them, as hosted servers may not."""
    names = ("maxmemory", "maxmemory-policy", "appendfsync", "min-replicas-to-write")
    try:
        found = ask(connection, ("CONFIG", "GET", *names))
    except refused.ResponseError:
        return {}
    words = [word.decode("utf-8", "replace") for word in found]
    return dict(zip(words[::2], words[1::2], strict=False))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _fault(info: dict[str, str], settings: dict[str, str]) -> str | None:
    valkey = info.get("valkey_version")
    if valkey is not None and _version(valkey) < MIN_VALKEY:
        return f"the store is Valkey {valkey}: 7.2 is the oldest that will do"
    redis = info.get("redis_version", "0")
    if valkey is None and _version(redis) < MIN_REDIS:
        return f"the store is Redis {redis}: 7.0 is the oldest that will do"
    policy = settings.get("maxmemory-policy", info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and settings.get("maxmemory", info.get("maxmemory", "0")) != "0":
        return f"the store evicts keys when its memory is full ({policy}): set maxmemory-policy to noeviction"
    return None


def _risks(info: dict[str, str], settings: dict[str, str]) -> tuple[str, ...]:
    """The reasons why an acknowledged message may be lost."""
    risks = []
    if info.get("aof_enabled") != "1":
        risks.append("appendonly is off: a restart loses messages")
    elif settings.get("appendfsync", "always") != "always":
        risks.append("appendfsync isn't always: a crash loses the last messages")
    if info.get("connected_slaves", "0") != "0" and settings.get("min-replicas-to-write", "1") == "0":
        risks.append("min-replicas-to-write is 0: a failover may lose the last messages")
    return tuple(risks)


def ask_sentinels(address: StoreAddress, patience: float) -> tuple[str, int]:
    """The address of the primary, from the first Sentinel that knows it. Raises StoreProblem."""
    problem = "no Sentinel can be reached"
    for host, port in address.hosts:
        alone = replace(
            address, kind=StoreKind.STANDALONE, hosts=((host, port),), username=None, password=None, db=0
        )
        try:
            with closing_connection(Connector(alone, patience=patience).connect()) as connection:
                found = ask(connection, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(address.primary)))
        except (refused.RedisError, OSError):
            continue
        if found is not None:
            return found[0].decode(), int(found[1])
        problem = f"no Sentinel knows the primary {address.primary!r}"
    raise StoreProblem(problem)


@contextmanager
def closing_connection(connection: AbstractConnection) -> Iterator[AbstractConnection]:
    """Disconnect at the end."""
    try:
        yield connection
    finally:
        connection.disconnect()
