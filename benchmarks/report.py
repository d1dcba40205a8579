"""Rounds of measurements turned into medians and ratios."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.systems import OURS


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and the least and the greatest value in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Of rounds that hold a cost for each system: how many times our cost every other had, by round."""
    if not rounds or OURS not in rounds[0]:
        return {}
    return {name: [costs[name] / costs[OURS] for costs in rounds] for name in rounds[0] if name != OURS}


def print_ratios(what: str, rounds: Sequence[Mapping[str, float]]) -> float:
    """Print each ratio; return the smallest median, infinity where there is nothing to compare."""
    found = ratios(rounds)
    for name, values in found.items():
        print(f"  {what}: {name} / {OURS} = {spread(values)}")
    return min((statistics.median(values) for values in found.values()), default=float("inf"))


def verdict(least: float, wanted: float) -> int:
    """The exit code: 1 where the smallest ratio is below what was asked for."""
    if least >= wanted:
        return 0
    print(f"  below the ratio asked for: {least:.2f} < {wanted:g}")
    return 1
