"""Delta debugging: the smallest part of something that still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tsguard.repro.case import Case

Keep = Callable[[Case], bool]
"""Whether a candidate fails with the fingerprint of the case (cached and counted by the engine)."""


def smallest(items: Iterable[int], fails: Callable[[Sequence[int]], bool], *, may_be_empty: bool = False) -> list[int]:
    """A smallest subset, in order, that still fails: no single item of it can be left out (delta debugging).

    Chunks halve when none can be dropped and start anew after a success; the order of trials is fixed, so that two
    calls give the same answer.
    """
    kept = list(items)
    if may_be_empty and fails([]):
        return []
    for single in kept[:1] + kept[-1:]:
        if len(kept) > 1 and fails([single]):
            return [single]
    chunk = max(1, len(kept) // 2)
    while True:
        start, dropped = 0, False
        while start < len(kept) and len(kept) > 1:
            trial = kept[:start] + kept[start + chunk :]
            if trial and fails(trial):
                kept, dropped = trial, True
            else:
                start += chunk
        if chunk == 1 and not dropped:
            return kept
        if not dropped or chunk > len(kept) // 2:
            chunk = max(1, chunk // 2)
