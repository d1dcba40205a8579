"""The servers that are measured: how each is started, pinned, watched and stopped.

1. The servers run on core 0, the generator moves itself to core 1, and only one server is measured at a time.
2. A server says `Listening on http://127.0.0.1:PORT` first on standard output.
3. CPU time and memory are those of the process and of all its descendants, as long as these live.
"""

import argparse
import contextlib
import fcntl
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / ".build"
VENV_PYTHON = BUILD / "bench-venv" / "bin" / "python"
NODE_MODULES = BUILD / "bench-node" / "node_modules"
OURS, LOGGED = "chatroom", "chatroom-log"
BEFORE = "before"
OTHERS = ("websockets", "ws", "picows")
NAMES = (OURS, LOGGED, *OTHERS, "ws-preframed")
CERTIFICATE = ROOT / "tests" / "support" / "localhost.pem"
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVER_CORE, GENERATOR_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class System:
    """A server under measurement: its name and the command that starts it."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    pid: int
    port: int

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens."""
        return (self.port,)

    def store_seconds(self) -> float:
        """CPU time of a store beside it: it keeps what it keeps by itself."""
        return 0.0

    def cpu_seconds(self) -> float:
        """User and system time that it has used up to now."""
        return cpu_seconds(self.pid)

    def waited_seconds(self) -> float:
        """How long it was kept from its core by others; meaningful as a difference."""
        return sum(waited_seconds(pid) for pid in _tree(self.pid))

    def rss(self) -> int:
        """Bytes of memory that are resident now."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in _tree(self.pid))


def options(
    description: str | None, *, names: tuple[str, ...] = (OURS, *OTHERS), builds: bool = True
) -> argparse.ArgumentParser:
    """A parser with the options that all programs share; `builds`: two builds of ours can be compared."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--ours", default=default_command(), metavar="COMMAND", help="default: %(default)s")
    parser.set_defaults(before=None)
    if builds:
        parser.add_argument(
            "--before",
            metavar="COMMAND",
            help=f"another build of ours, measured in turn with it under the name `{BEFORE}`",
        )
    parser.add_argument(
        "--systems",
        nargs="+",
        default=list(names),
        choices=NAMES,
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; default: {' '.join(names)}",
    )
    return parser


def default_command() -> str:
    """The built file where there is one, else the package in this checkout."""
    what = ["./chat.pyz"] if (ROOT / "chat.pyz").exists() else ["-m", "chatroom"]
    return shlex.join([sys.executable, *what])


def chosen(args: argparse.Namespace, *extra: str, folder: str = "", tls: bool = False) -> list[System]:
    """The systems named on the command line; `extra` are options for ours alone.

    Those with a log have it on disk in `folder`; the others keep messages in memory. With `tls` all have the
    same certificate.
    """
    certificate = ("--tls", str(CERTIFICATE)) if tls else ()
    node = ("node", str(HERE / "servers" / "ws_room.cjs"), *certificate)
    modules = {"NODE_PATH": str(NODE_MODULES)}
    known = {
        "websockets": System("websockets", _python("websockets_room.py", *certificate)),
        "picows": System("picows", _python("picows_room.py", *certificate)),
        "ws": System("ws", node, modules),
        "ws-preframed": System("ws-preframed", (*node, "--preframed"), modules),
    }
    systems = []
    for name in args.systems:
        if name in known:
            systems.append(known[name])
            continue
        systems.append(_ours(name, args.ours, *extra, folder=folder, tls=tls))
        if args.before:
            systems.append(_ours(name.replace(OURS, BEFORE), args.before, *extra, folder=folder, tls=tls))
    return systems


def _python(server: str, *options: str) -> tuple[str, ...]:
    return (str(VENV_PYTHON), str(HERE / "servers" / server), *options)


def _ours(name: str, command: str, *extra: str, folder: str, tls: bool) -> System:
    database = f"{folder}/{name}.db" if name.endswith("-log") else "none"
    certificate = ("--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE)) if tls else ()
    return ours(name, command, "--db", database, *certificate, *extra)


def ours(name: str, command: str, *extra: str) -> System:
    """Our server, at a free port, without limits that would slow down a measurement."""
    quiet = ("--port", "0", "--rate", "0", "--ping-interval", "10m")
    return System(name, (*shlex.split(command), *quiet, *extra))


def go_first(priority: int = 1) -> None:
    """Have this process, and the servers it starts, go before all other work, where that is allowed.

    A server that is kept waiting finds several messages where there was one at a time, and is measured as
    better than it is. What has the higher `priority` goes before the rest.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


def pinned(core: int) -> list[str]:
    """What a command begins with that is to stay on one core, where there are several."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other runs of these programs from measuring at the same time, on the same cores."""
    with (Path(tempfile.gettempdir()) / "chatroom-benchmarks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare_generator() -> None:
    """Move this process to its own core and let it open as many sockets as the system allows."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {GENERATOR_CORE})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def running(system: System) -> Iterator[Server]:
    """Start a server on core 0, wait until it listens, and stop it at the end.

    Raises `RuntimeError` if it doesn't come up. After any error, what it said last goes to standard error.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*pinned(SERVER_CORE), *system.argv],
            cwd=ROOT,
            env={**os.environ, **system.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            if not line.startswith(("Listening on http://", "Listening on https://")):
                raise RuntimeError(f"{system.name} didn't start: {line}")
            yield Server(process.pid, int(line.rsplit(":", 1)[1]))
        except BaseException:
            print(f"{system.name} said last:\n{_end_of(log)}", file=sys.stderr)
            raise
        finally:
            end(process)


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(line.decode(errors="replace") for line in log.read().splitlines()[-10:])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a server, by force if it must be."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def waited_seconds(pid: int) -> float:
    """How long the first thread of a process was kept from a core, but by the other threads of its own.

    It is a little off at any one moment, so it means something as a difference only.
    """
    ran, waited, _ = (int(part) / 1e9 for part in Path(f"/proc/{pid}/schedstat").read_text().split())
    return waited - (time.clock_gettime(_cpu_clock(pid)) - ran)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants up to now."""
    return sum(time.clock_gettime(_cpu_clock(each)) for each in _tree(pid))


def _cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, in nanoseconds and with the threads that have ended."""
    return ~pid << 3 | 2  # clock_getcpuclockid(3), which Python doesn't have


def _tree(pid: int) -> list[int]:
    children = [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]
