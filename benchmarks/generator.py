"""The load generator in C: compiled where it isn't yet, run against a server, its figures read.

It has to be C: a generator in Python takes as long for a message as the servers that are measured, so that
they find several waiting where a chat has one.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import wire
from benchmarks.systems import BUILD, HERE, alone, waited_seconds

SOURCE = HERE / "generator.c"
PROGRAM = BUILD / "bench-generator"
SEED = 1
UNDER_WAY = 64
TRIES = 5
TOLERATED = 0.1
"""Of the time of a talk, how much a server and the generator together may be kept from their cores."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Rooms of one size, and how many messages a second are sent in all; saturated without a rate."""

    rooms: int
    members: int
    rate: float | None = None

    @classmethod
    def parse(cls, name: str) -> "Workload":
        """From a name like `500x2@3000` or `1x100`. Raises `ValueError`."""
        found = re.fullmatch(r"(\d+)x(\d+)(?:@(\d+))?", name)
        if found is None:
            raise ValueError(f"not like 500x2@3000 or 1x100: {name}")
        rooms, members, rate = found.groups()
        return cls(int(rooms), int(members), float(rate) if rate else None)

    def __str__(self) -> str:
        pace = f" at {self.rate:,.0f} messages/s" if self.rate else ", saturated"
        return f"{self.rooms:,} \N{MULTIPLICATION SIGN} {self.members:,}{pace}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """For the generator. Saturated, each has a message under way, but not more than 64 in a room."""
        pace = ("-R", f"{self.rate:g}") if self.rate else ("-k", f"{min(self.members, UNDER_WAY)}")
        return ("-r", str(self.rooms), "-m", str(self.members), *pace)


class Loaded(Protocol):
    """A server, or several that behave as one."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Where members come in, in turn."""
        ...

    def cpu_seconds(self) -> float:
        """User and system time used up to now."""
        ...

    def store_seconds(self) -> float:
        """The same of the store that keeps the messages, if there is one."""
        ...

    def waited_seconds(self) -> float:
        """How long others kept it from its core; meaningful as a difference."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """What one talk cost.

    `waited`: how long server and generator were kept from their cores by others. Latencies are
    `{"p50": …, "p99": …}` in microseconds.
    """

    messages: int
    deliveries: int
    seconds: float
    server_cpu: float
    store_cpu: float
    generator_cpu: float
    waited: float
    frame: int
    echo: dict[str, float]
    delivery: dict[str, float]
    late: dict[str, float]

    @property
    def cost(self) -> float:
        """Seconds of server CPU for a million deliveries."""
        return self.server_cpu * 1e6 / self.deliveries


def compile_generator() -> None:
    """Compile it if it has changed."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        subprocess.run(
            ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(PROGRAM), str(SOURCE)], check=True
        )


class Crowd:
    """The members on one server, between whose talks nothing is under way."""

    def __init__(self, server: Loaded, process: "subprocess.Popen[str]", *, shared: bool) -> None:
        self._server = server
        self._shared = shared
        self._process = process
        if self._line() != "ready\n":
            raise wire.WrongDeliveryError("the generator isn't ready")

    def talk(self) -> Load:
        """Have them talk, and measure the server. Raises `WrongDeliveryError`.

        If other work on the machine kept either side from its core, they talk again, a few times at most.
        """
        loads: list[Load] = []
        while len(loads) < TRIES and not (loads and loads[-1].waited <= TOLERATED * loads[-1].seconds):
            with alone():
                loads.append(self._measure())
        return min(loads, key=lambda load: load.waited)

    def _measure(self) -> Load:
        assert self._process.stdin is not None
        cpu, store, waited = self._server.cpu_seconds(), self._server.store_seconds(), self._waited()
        self._process.stdin.write("talk\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        cpu, store = self._server.cpu_seconds() - cpu, self._server.store_seconds() - store
        waited = max(0.0, self._waited() - waited)
        own = found.pop("cpu")
        return Load(server_cpu=cpu, store_cpu=store, generator_cpu=own, waited=waited, **found)

    def _waited(self) -> float:
        if self._shared:
            return 0.0
        return self._server.waited_seconds() + waited_seconds(self._process.pid)

    def _line(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise wire.WrongDeliveryError(self._process.stderr.read().strip())
        return line


@contextmanager
def crowd(server: Loaded, workload: Workload, *options: str, shared: bool = False) -> Iterator[Crowd]:
    """Members who have come into a server's rooms. Raises `WrongDeliveryError`.

    `shared`: more runs on these cores that belongs to the measurement, so that a wait tells nothing.
    """
    ports = [option for port in server.ports for option in ("-p", str(port))]
    argv = (str(PROGRAM), *ports, "-S", str(SEED), *workload.arguments, *options)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield Crowd(server, process, shared=shared)
