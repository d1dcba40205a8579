"""The servers that are measured: how each is started, pinned, watched and stopped.

1. Every server runs alone, on core 0; the generator moves itself to core 1.
2. A server says `Listening on http://127.0.0.1:PORT` first on standard output.
3. CPU time and memory are those of the process and of all its descendants.
"""

import argparse
import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / ".build"
VENV_PYTHON = BUILD / "bench-venv" / "bin" / "python"
NODE_MODULES = BUILD / "bench-node" / "node_modules"
OURS = "chatroom"
OTHERS = ("websockets", "ws")
NAMES = (OURS, *OTHERS, "ws-preframed")
TICKS = os.sysconf("SC_CLK_TCK")
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

    def cpu_seconds(self) -> float:
        """User and system time that it has used up to now."""
        return sum(_cpu_ticks(pid) for pid in _tree(self.pid)) / TICKS

    def rss(self) -> int:
        """Bytes of memory that are resident now."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in _tree(self.pid))


def options(description: str | None, *, names: tuple[str, ...] = (OURS, *OTHERS)) -> argparse.ArgumentParser:
    """A parser with the options that all programs share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--ours", default=default_command(), metavar="COMMAND", help="default: %(default)s")
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


def chosen(args: argparse.Namespace, *extra: str) -> list[System]:
    """The systems named on the command line; `extra` are options for ours alone."""
    quiet = ("--port", "0", "--db", "none", "--rate", "0", "--ping-interval", "10m", *extra)
    python = (str(VENV_PYTHON), str(HERE / "servers" / "websockets_room.py"))
    node = ("node", str(HERE / "servers" / "ws_room.cjs"))
    modules = {"NODE_PATH": str(NODE_MODULES)}
    known = (
        System(OURS, (*shlex.split(args.ours), *quiet)),
        System("websockets", python),
        System("ws", node, modules),
        System("ws-preframed", (*node, "--preframed"), modules),
    )
    return [system for name in args.systems for system in known if system.name == name]


def prepare_generator() -> None:
    """Move this process to its own core and let it open as many sockets as the system allows."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {GENERATOR_CORE})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def running(system: System) -> Iterator[Server]:
    """Start a server on its core, wait until it listens, and stop it at the end.

    Raises `RuntimeError` if it doesn't come up. After any error, what it said last goes to standard error.
    """
    pin = ["taskset", "-c", str(SERVER_CORE)] if (os.cpu_count() or 1) > 1 else []
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*pin, *system.argv],
            cwd=ROOT,
            env={**os.environ, **system.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            if not line.startswith("Listening on http://"):
                raise RuntimeError(f"{system.name} didn't start: {line}")
            yield Server(process.pid, int(line.rsplit(":", 1)[1]))
        except BaseException:
            print(f"{system.name} said last:\n{_end_of(log)}", file=sys.stderr)
            raise
        finally:
            _stop(process)


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(line.decode(errors="replace") for line in log.read().splitlines()[-10:])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _tree(pid: int) -> list[int]:
    children = [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]
