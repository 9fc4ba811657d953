"""How often a failure comes that depends on random numbers: counted over seeds, told with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

SEEDS_TRIED = 8
"""Runs by which it is told how often a failure comes: one that comes in every third run is missed in 4 % of cases."""

SHARE_KEPT = 0.5
"""A smaller case must fail at least half as often as the whole one: else chance alone would carry a reduction away."""

_DEVIATIONS = 1.96
"""Of the normal distribution, for an interval that holds the true share in 95 % of cases."""


def interval(failed: int, runs: int) -> tuple[float, float]:
    """Between which shares the true one lies (Wilson's interval, right for few runs too)."""
    share, z = failed / runs, _DEVIATIONS
    centre = share + z * z / (2 * runs)
    reach = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    return max(0.0, (centre - reach) / (1 + z * z / runs)), min(1.0, (centre + reach) / (1 + z * z / runs))


def words(failed: int, runs: int) -> str:
    """For a person; empty where it always fails."""
    if failed >= runs:
        return ""
    low, high = interval(failed, runs)
    return (
        f"in {failed} of {runs} runs with other random numbers (between {low:.0%} and {high:.0%} of all); "
        f"the seed in the script is one that fails"
    )


def needed(failed: int, runs: int) -> int:
    """In how many of as many runs a candidate must fail to be kept."""
    return max(1, math.ceil(SHARE_KEPT * failed)) if failed < runs else 1


def enough(fails: Callable[[int], bool], seeds: Iterable[int], least: int) -> bool:
    """Whether at least so many seeds fail; asks no more of them than it must."""
    waiting, failed = list(seeds), 0
    while waiting and failed < least <= failed + len(waiting):
        failed += fails(waiting.pop(0))
    return failed >= least
