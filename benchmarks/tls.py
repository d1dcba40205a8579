"""What a delivery costs by TLS, against a plain one: the server's CPU time at the same steady pace.

The workloads are called as in `talk`. The clients are Python's, because of their TLS; at a steady pace that
doesn't show in what the server spends.
"""

import argparse
import ssl
import sys
from contextlib import ExitStack

from benchmarks import wire
from benchmarks.generator import Workload
from benchmarks.report import spread
from benchmarks.sizing import enter, fall_silent, talk
from benchmarks.systems import OURS, Server, alone, chosen, go_first, options, prepare_generator, running

WORKLOADS = ("1x100@100", "100x2@200")
PLAIN, SECURE = "plain", "by TLS"


class Crowd:
    """Members on one server, plain or by TLS."""

    def __init__(self, server: Server, workload: Workload, tls: ssl.SSLContext | None) -> None:
        assert workload.rate is not None
        self._server = server
        self._size = workload.members
        self._rate = workload.rate
        self._clients = enter(server.port, range(workload.rooms * self._size), self._size, tls)
        fall_silent(self._clients)

    def talk(self, seconds: float) -> float:
        """Seconds of server CPU for a million deliveries."""
        for client in self._clients:
            client.frames = 0
        with alone():
            cpu = self._server.cpu_seconds()
            messages, _ = talk(self._server, self._clients, self._size, self._rate, seconds)
            cpu = self._server.cpu_seconds() - cpu
        return cpu * 1e6 / (messages * self._size)


def measure_all(args: argparse.Namespace, workload: Workload) -> list[dict[str, float]]:
    """How many times a plain delivery one by TLS costs, round by round; the first one is left out."""
    print(f"tls: {workload}")
    with ExitStack() as stack:
        crowds = {
            (system.name, how): Crowd(stack.enter_context(running(system)), workload, context)
            for how, context in ((PLAIN, None), (SECURE, wire.trusting()))
            for system in chosen(args, tls=how == SECURE)
        }
        rounds = [
            {which: members.talk(args.seconds) for which, members in crowds.items()}
            for _ in range(args.rounds + 1)
        ][1:]
    names = [name for name, how in crowds if how == PLAIN]
    for name, how in crowds:
        cost = spread([costs[name, how] for costs in rounds], ".3f")
        print(f"  {name:13} {how:6} {cost} CPU s per million deliveries", flush=True)
    return [{name: costs[name, SECURE] / costs[name, PLAIN] for name in names} for costs in rounds]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,))
    parser.add_argument(
        "workloads",
        nargs="*",
        type=Workload.parse,
        default=[Workload.parse(name) for name in WORKLOADS],
        metavar="ROOMSxMEMBERS@RATE",
        help=f"default: {' '.join(WORKLOADS)}",
    )
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=6)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and print how many times a plain delivery one by TLS costs."""
    args = parse(argv)
    prepare_generator()
    go_first()
    for workload in args.workloads:
        rounds = measure_all(args, workload)
        for name in rounds[0]:
            print(f"  {name:13} by TLS / plain = {spread([times[name] for times in rounds])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
