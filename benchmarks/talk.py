"""The cost of a delivery in rooms of any size: at a steady number of messages a second, or saturated.

A workload is called ROOMSxMEMBERS@RATE, as 500x2@3000: evenly spaced messages, each by a random member.
Without a rate the rooms are saturated: each member has a message under way, but a room has at most 64, and a
sender sends its next when that comes back; at most ten members of a room send.

The figure is the CPU time of the server for a delivery to a member. All servers are up at once, and the
members of one after the other talk for half a second, round by round, so that a machine whose speed changes
is as fast for each of them. The generator checks that each message came to each member once and in order; see
the head of generator.c.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from benchmarks.generator import Crowd, Load, Workload, compile_generator, crowd
from benchmarks.report import print_ratios, spread, verdict
from benchmarks.systems import (
    BUILD,
    LOGGED,
    OTHERS,
    OURS,
    chosen,
    go_first,
    options,
    prepare_generator,
    running,
)

LATENCIES: dict[str, Callable[[Load], dict[str, float]]] = {
    "echo": lambda load: load.echo,
    "delivery": lambda load: load.delivery,
    "sent late": lambda load: load.late,
}
WORKLOADS = ("500x2@3000", "500x2", "1x100@200", "1x100", "1x1000")


def describe(name: str, loads: Sequence[Load]) -> str:
    """One system in one line: its cost with the span, of the rest the medians."""

    def middle(of: Callable[[Load], float]) -> float:
        return statistics.median(of(found) for found in loads)

    latencies = ", ".join(
        f"{what} {middle(lambda load, of=of: of(load)['p50']):,.0f}/"
        f"{middle(lambda load, of=of: of(load)['p99']):,.0f}"
        for what, of in LATENCIES.items()
    )
    return (
        f"  {name:13} {spread([found.cost for found in loads], '.3f'):28} CPU s per million deliveries "
        f"{middle(lambda load: load.deliveries / load.seconds):12,.0f}/s   "
        f"server {middle(lambda load: load.server_cpu / load.seconds):.0%}, "
        f"generator {middle(lambda load: load.generator_cpu / load.seconds):.0%} of a core, "
        f"waited {middle(lambda load: load.waited / load.seconds):.0%}   "
        f"µs p50/p99: {latencies}"
    )


def measure(args: argparse.Namespace, workload: Workload) -> list[dict[str, Load]]:
    """Load all systems in turn, round by round; the first one, in which all is new to them, is left out."""
    extra = ("-s", f"{args.seconds:g}", *(("-c",) if args.cids else ()))
    print(f"talk: {workload}")
    with ExitStack() as stack:
        crowds: dict[str, Crowd] = {}
        for system in chosen(
            args,
            folder=stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-talk-", dir=args.folder)),
        ):
            server = stack.enter_context(running(system))
            crowds[system.name] = stack.enter_context(crowd(server, workload, *extra))
        rounds = []
        for _ in range(args.rounds + 1):
            rounds.append({name: members.talk() for name, members in crowds.items()})
    del rounds[0]
    for name in rounds[0]:
        print(describe(name, [loads[name] for loads in rounds]), flush=True)
    return rounds


def costs(rounds: Sequence[Mapping[str, Load]]) -> list[dict[str, float]]:
    """CPU seconds per million deliveries."""
    return [{name: found.cost for name, found in loads.items()} for loads in rounds]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS, LOGGED, *OTHERS))
    parser.add_argument(
        "workloads",
        nargs="*",
        type=Workload.parse,
        default=[Workload.parse(name) for name in WORKLOADS],
        metavar="ROOMSxMEMBERS[@RATE]",
        help=f"default: {' '.join(WORKLOADS)}",
    )
    parser.add_argument("--cids", action="store_true", help="each message has a cid")
    parser.add_argument("--folder", default=str(BUILD), help="where the databases lie; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each talk; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument(
        "--at-least", type=float, default=0.0, metavar="RATIO", help="exit 1 below this median ratio"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure all systems under each workload, and print the ratios."""
    args = parse(argv)
    compile_generator()
    prepare_generator()
    go_first()
    least = float("inf")
    for workload in args.workloads:
        rounds = costs(measure(args, workload))
        least = min(least, print_ratios("deliveries per CPU second", rounds))
    return verdict(least, args.at_least)


if __name__ == "__main__":
    sys.exit(main())
