"""How long our commands take from outside, when their files have been used before.

1. The server: from the command to its first line.
2. `say`: from the command to the moment when another member of the room has the message, which is stored
   then, and to the end of the command. The server runs already, on the other core.

Where the command names a built file, its size is told.
"""

import argparse
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from benchmarks import wire
from benchmarks.idle import await_welcome
from benchmarks.report import spread
from benchmarks.systems import GENERATOR_CORE, OURS, ROOT, System, chosen, go_first, options, pinned, running

ROOM = "start"


class Said(NamedTuple):
    """Seconds from the command `say`."""

    stored: float
    ended: float


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,))
    parser.add_argument("--starts", type=int, default=10, help="of each command; default: %(default)s")
    for name, what in (("--at-most", "of the server"), ("--say-at-most", "of say, to stored")):
        parser.add_argument(
            name, type=float, default=float("inf"), metavar="SECONDS", help=f"exit 1 above this median {what}"
        )
    return parser.parse_args(argv)


def measure_all(args: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds to the first line, start by start; the first one fills the caches."""
    rounds = []
    for _ in range(args.starts + 1):
        times = {}
        for system in chosen(args):
            begin = time.perf_counter()
            with running(system):
                times[system.name] = time.perf_counter() - begin
        rounds.append(times)
    return rounds


def measure_says(args: argparse.Namespace) -> list[Said]:
    """What one `say` after the other takes; the first one fills the caches."""
    (system,) = (each for each in chosen(args) if each.name == OURS)
    with running(system) as server, tempfile.TemporaryDirectory() as state:
        member = wire.connect(server.port, "reader", ROOM)
        await_welcome(member)
        address = f"ws://{wire.HOST}:{server.port}"
        command = [*pinned(GENERATOR_CORE), *shlex.split(args.ours), "say", address, "--room", ROOM]
        env = {**os.environ, "CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": state}
        with member:
            return [say(command, env, member, f"message {number}") for number in range(args.starts + 1)]


def say(command: list[str], env: dict[str, str], member: socket.socket, text: str) -> Said:
    """Have `text` said, and wait until `member` has it. Raises WrongDeliveryError if it doesn't come."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        received = b""
        while text.encode() not in received:
            wire.wait_readable(member)
            received += member.recv(65536)
        stored = time.perf_counter() - begin
        process.wait()
        ended = time.perf_counter() - begin
    if process.returncode:
        raise wire.WrongDeliveryError(f"say ended with {process.returncode}")
    return Said(stored, ended)


def megabytes(system: System) -> float | None:
    """The size of a system's built file, in MB (1,000,000 bytes)."""
    files = [ROOT / part for part in system.argv if part.endswith(".pyz")]
    return files[0].stat().st_size / 1e6 if files else None


def main(argv: list[str] | None = None) -> int:
    """Start once for the caches, then as often as asked."""
    args = parse(argv)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # by which every start would be a first one
    go_first()
    first, *rounds = measure_all(args)
    for system in chosen(args):
        size = megabytes(system)
        print(f"start: {' '.join(system.argv)}{f', a file of {size:.2f} MB' if size else ''}")
        warm = spread([times[system.name] for times in rounds])
        print(f"  first {first[system.name]:.2f} s, then {warm} s to `Listening`")
    says = measure_says(args)[1:]
    stored = [each.stored for each in says]
    print(f"  say: {spread(stored)} s to stored, {spread([each.ended for each in says])} s to its end")
    medians = (statistics.median(times[OURS] for times in rounds), statistics.median(stored))
    wanted = (args.at_most, args.say_at_most)
    slow = [most for median, most in zip(medians, wanted, strict=True) if median > most]
    for most in slow:
        print(f"  above {most:g} s")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
