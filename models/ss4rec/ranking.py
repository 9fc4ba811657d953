"""From a table of (user, item, time) to sequences, and from scores to HR, NDCG and MRR. Arrays in, arrays out.

Full ranking: every item of the catalogue competes with the target. Ranking against a few sampled negatives reorders
methods, and an error of ratings (RMSE) says nothing about a ranking.
"""

import numpy as np


def core_filter(users, items, minimum: int = 5) -> np.ndarray:
    """Which rows remain when users and items with fewer than `minimum` rows are dropped until none is left to drop."""
    users, items = np.asarray(users), np.asarray(items)
    kept = np.ones(len(users), bool)
    while True:
        enough = kept.copy()
        for column in (users, items):
            values, inverse = np.unique(column, return_inverse=True)
            enough &= np.bincount(inverse[kept], minlength=len(values))[inverse] >= minimum
        if (enough == kept).all():
            return kept
        kept = enough


def sequences(users, items, timestamps) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Items (numbered 1, 2, …) and int64 times of every user in time order, and the original item ids by number − 1.

    Simultaneous events keep the order of the table.
    """
    users, times = np.asarray(users), np.asarray(timestamps)
    if times.dtype.kind == "f" and times.dtype.itemsize < 8:
        raise ValueError(f"timestamps must be integers or float64, for float32 merges them; received {times.dtype}.")
    times = times.astype(np.int64)
    catalogue, numbers = np.unique(items, return_inverse=True)
    order = np.lexsort((np.arange(len(users)), times, users))
    starts = np.flatnonzero(np.diff(users[order], prepend=users[order][:1] - 1))[1:]
    split = lambda values: np.split(values[order], starts)  # noqa: E731
    return split(numbers.astype(np.int32) + 1), split(times), catalogue


def batch(histories, times, length: int, waits=None) -> dict[str, np.ndarray]:
    """The last `length` events of each history, padded on the right: item 0, the last time repeated, mask false.

    Each event lasts until the next one, the last one for its row's `waits` seconds (0 by default).
    """
    rows = len(histories)
    out = {
        "items": np.zeros((rows, length), np.int32),
        "timestamps": np.zeros((rows, length), np.int64),
        "wait": np.zeros((rows, 1), np.int64),
        "mask": np.zeros((rows, length), bool),
    }
    if waits is not None:
        out["wait"][:, 0] = waits
    for row, (history, when) in enumerate(zip(histories, times, strict=True)):
        history, when = history[-length:], when[-length:]
        count = len(history)
        out["items"][row, :count], out["mask"][row, :count] = history, True
        out["timestamps"][row, :count], out["timestamps"][row, count:] = when, when[-1]
    return out


def training_windows(histories, times, length: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every history cut into windows that end at its end; `y` is the next item at each event, 0 at padding."""
    items, when, following, waits = [], [], [], []
    for history, moments in zip(histories, times, strict=True):
        for stop in range(len(history) - 1, 0, -length):
            start = max(0, stop - length)
            items.append(history[start:stop])
            when.append(moments[start:stop])
            following.append(history[start + 1 : stop + 1])
            waits.append(moments[stop] - moments[stop - 1])
    y = np.zeros((len(items), length), np.int32)
    for row, values in enumerate(following):
        y[row, : len(values)] = values
    return batch(items, when, length, waits), y


def leave_one_out(histories, times, length: int, held_back: int = 1):
    """Inputs that end just before the `held_back`-th event from the end, that event's item, and what the user had
    seen."""
    known = [history[:-held_back] for history in histories]
    waits = [moments[-held_back] - moments[-held_back - 1] for moments in times]
    x = batch(known, [moments[:-held_back] for moments in times], length, waits)
    return x, np.array([history[-held_back] for history in histories]), known


def target_ranks(scores, targets, seen=None) -> np.ndarray:
    """The rank (1 is best) of each target among all items; column 0 is padding, `seen` items are out of the race.

    Ties count half, so a constant score lands in the middle instead of on top.
    """
    scores = np.array(scores, np.float64)
    rows = np.arange(len(targets))
    target = scores[rows, targets]
    if not np.isfinite(target).all():
        raise ValueError(f"{(~np.isfinite(target)).sum()} of {len(target)} targets have a score that is not finite.")
    for row, items in enumerate(seen if seen is not None else ()):
        scores[row, items] = -np.inf
    scores[:, 0] = -np.inf
    scores[rows, targets] = target
    above = (scores > target[:, None]).sum(axis=1)
    level = (scores == target[:, None]).sum(axis=1) - 1
    return 1 + above + level / 2


def ranking_metrics(ranks, k: int = 10) -> dict[str, float]:
    """HR, NDCG and MRR at k for one relevant item per user."""
    ranks = np.asarray(ranks, np.float64)
    hit = ranks <= k
    return {
        f"hr@{k}": hit.mean(),
        f"ndcg@{k}": np.where(hit, 1 / np.log2(ranks + 1), 0).mean(),
        f"mrr@{k}": np.where(hit, 1 / ranks, 0).mean(),
    }
