"""Rounds of measurements turned into medians and ratios."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.systems import BEFORE, LOGGED, OURS


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and the least and the greatest value in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(rounds: Sequence[Mapping[str, float]], ours: str = OURS) -> dict[str, list[float]]:
    """Of rounds that hold a cost for each system: how many times our cost every other had, by round.

    A build before is compared only with what keeps its messages in the same place.
    """
    if not rounds or ours not in rounds[0]:
        return {}
    own = {OURS, LOGGED, BEFORE, LOGGED.replace(OURS, BEFORE)} - {ours.replace(OURS, BEFORE)}
    others = [name for name in rounds[0] if name not in own]
    return {name: [costs[name] / costs[ours] for costs in rounds] for name in others}


def print_ratios(what: str, rounds: Sequence[Mapping[str, float]]) -> float:
    """Print each ratio; return the smallest median, infinity where there is nothing to compare."""
    medians = [float("inf")]
    for ours in (OURS, LOGGED):
        for name, values in ratios(rounds, ours).items():
            print(f"  {what}: {name} / {ours} = {spread(values)}")
            medians.append(statistics.median(values))
    return min(medians)


def verdict(least: float, wanted: float) -> int:
    """The exit code: 1 where the smallest ratio is below what was asked for."""
    if least >= wanted:
        return 0
    print(f"  below the ratio asked for: {least:.2f} < {wanted:g}")
    return 1
