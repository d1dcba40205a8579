"""`python -m benchmarks [PROGRAM [OPTIONS]]`: the table of results, one program, or `all` of them."""

import sys

from benchmarks import (
    abuse,
    cluster,
    http,
    idle,
    joins,
    log,
    page,
    rooms,
    sizing,
    stalled,
    start,
    table,
    talk,
    tls,
    walk,
)
from benchmarks.prepare import prepare

PROGRAMS = {
    "talk": talk.main,
    "joins": joins.main,
    "idle": idle.main,
    "tls": tls.main,
    "rooms": rooms.main,
    "start": start.main,
    "walk": walk.main,
    "log": log.main,
    "http": http.main,
    "stalled": stalled.main,
    "abuse": abuse.main,
    "sizing": sizing.main,
    "cluster": cluster.main,
    "page": page.main,
    "table": table.main,
}
COMPARING = {"talk", "joins", "idle", "table", "cluster"}
"""The programs that run the servers of others, too."""
ALL = "all"


def main(argv: list[str]) -> int:
    """Run what is asked for; the exit code is that of the worst."""
    name, *options = argv or ["table"]
    if name not in PROGRAMS and argv != [ALL]:
        print(f"usage: python -m benchmarks [{' | '.join((*PROGRAMS, ALL))}] [options]", file=sys.stderr)
        return 2
    if name == ALL or name in COMPARING:
        prepare()
    if name == ALL:
        return max([program([]) for each, program in PROGRAMS.items() if each != "table"])
    return PROGRAMS[name](options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
