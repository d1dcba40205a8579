"""`python -m benchmarks [PROGRAM [OPTIONS]]`: install the comparison servers, run one program or all."""

import sys

from benchmarks import fanout, idle, joins, log, page, rooms, stalled, start
from benchmarks.prepare import prepare

PROGRAMS = {
    "fanout": fanout.main,
    "joins": joins.main,
    "idle": idle.main,
    "rooms": rooms.main,
    "start": start.main,
    "log": log.main,
    "stalled": stalled.main,
    "page": page.main,
}


def main(argv: list[str]) -> int:
    """Run what is asked for; the exit code is that of the worst."""
    if argv and argv[0] not in PROGRAMS:
        print(f"usage: python -m benchmarks [{' | '.join(PROGRAMS)}] [options]", file=sys.stderr)
        return 2
    prepare()
    if argv:
        return PROGRAMS[argv[0]](argv[1:])
    return max([program([]) for program in PROGRAMS.values()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
