"""How long our server takes from the command to its first line, when its files have been used before.

Where the command names a built file, its size is told.
"""

import argparse
import statistics
import sys
import time

from benchmarks.report import spread
from benchmarks.systems import OURS, ROOT, System, chosen, options, running


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,))
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument(
        "--at-most", type=float, default=float("inf"), metavar="SECONDS", help="exit 1 above this median"
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


def megabytes(system: System) -> float | None:
    """The size of a system's built file, in MB (1,000,000 bytes)."""
    files = [ROOT / part for part in system.argv if part.endswith(".pyz")]
    return files[0].stat().st_size / 1e6 if files else None


def main(argv: list[str] | None = None) -> int:
    """Start once for the caches, then as often as asked."""
    args = parse(argv)
    first, *rounds = measure_all(args)
    for system in chosen(args):
        size = megabytes(system)
        print(f"start: {' '.join(system.argv)}{f', a file of {size:.2f} MB' if size else ''}")
        warm = spread([times[system.name] for times in rounds])
        print(f"  first {first[system.name]:.2f} s, then {warm} s to `Listening`")
    if statistics.median(times[OURS] for times in rounds) <= args.at_most:
        return 0
    print(f"  above {args.at_most:g} s")
    return 1


if __name__ == "__main__":
    sys.exit(main())
