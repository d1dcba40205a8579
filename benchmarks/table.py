"""The table of results as Markdown: ours beside the others, by all the programs that compare.

The other programs measure, with their defaults. For each figure the systems take turns. The table shows the
median, with the least and the greatest value, and the cost of the other system divided by ours.
"""

import argparse
import gc
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import idle, joins, log, start, talk, tls, walk
from benchmarks.generator import compile_generator
from benchmarks.report import ratios, spread
from benchmarks.systems import BEFORE, LOGGED, OTHERS, OURS, chosen, go_first, options, prepare_generator

TIMES = "\N{MULTIPLICATION SIGN}"
COLUMNS = {
    OURS: "chatroom",
    BEFORE: "before",
    LOGGED: "with its log",
    LOGGED.replace(OURS, BEFORE): "before, with its log",
    "websockets": "`websockets` + uvloop",
    "ws": "Node `ws`",
    "picows": "picows",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Figures by system, round by round. Less is better, but not where `more` is."""

    what: str
    rounds: Sequence[Mapping[str, float]]
    form: str = ".3g"
    more: bool = False

    def cell(self, name: str) -> str:
        """One system's figure, and how many times as good ours is."""
        if name not in self.rounds[0]:
            return ""
        shown = [spread([figures[name] for figures in self.rounds], self.form)]
        for ours, where in ((OURS, ""), (LOGGED, " with the log")):
            if name in (found := ratios(self.rounds, ours)):
                shown.append(
                    f"{statistics.median(1 / x if self.more else x for x in found[name]):.2f} {TIMES}{where}"
                )
        return ", ".join(shown)


def markdown(rows: Sequence[Row]) -> str:
    """A column for each system that any row has."""
    columns = [name for name in COLUMNS if any(name in row.rounds[0] for row in rows)]
    lines = [["what", *(COLUMNS[name] for name in columns)], ["---"] * (len(columns) + 1)]
    lines += [[row.what, *(row.cell(name) for name in columns)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """Run one program after the other."""
    common = ["--ours", args.ours, *(("--before", args.before) if args.before else ())]
    often = [*common, *(("--rounds", str(args.rounds)) if args.rounds else ())]
    memory = ["--systems", *(name for name in args.systems if name != LOGGED)]
    talking = talk.parse([*often, "--systems", *args.systems])
    for workload in talking.workloads:
        yield Row(f"{workload}: CPU s per million deliveries", talk.costs(talk.measure(talking, workload)))
    yield Row("1,000 join a room: CPU s", joins.costs(joins.measure_all(joins.parse([*often, *memory]))))
    for how in ((), ("--tls",)):
        sizes = idle.measure_all(idle.parse([*common, *memory, *how]))
        yield Row(f"an idle connection{' by TLS' if how else ''}: kB", sizes, ".1f")
    secured = tls.parse(often)
    for workload in secured.workloads:
        yield Row(f"{workload}: by TLS, of plain CPU", tls.measure_all(secured, workload))
    rates = log.senders(log.parse(often), cids=True)
    yield Row("200 senders with cids, waiting for their echo: messages/s", rates, ",.0f", more=True)
    starting = start.parse(common)
    yield Row("warm start: s", start.measure_all(starting)[1:])
    yield Row("`say`, warm, to stored: s", [{OURS: each.stored} for each in start.measure_says(starting)[1:]])
    sizes = [{system.name: size for system in chosen(starting) if (size := start.megabytes(system))}]
    yield Row("size of the file: MB", sizes)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS, LOGGED, *OTHERS))
    parser.add_argument("--rounds", type=int, help="of everything; default: that of each program")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table in the end."""
    args = parse(argv)
    compile_generator()
    prepare_generator()
    go_first()
    gc.disable()
    table = markdown(list(measure(args)))
    print(f"\n{table}\n", flush=True)
    return walk.main([])


if __name__ == "__main__":
    sys.exit(main())
