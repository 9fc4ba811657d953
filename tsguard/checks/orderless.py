"""A model that cannot tell in which order its steps come, asked for something that only their order says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves, map_leaves
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights, predict
from tsguard.probes.learnable import curved_columns, ridge_r2
from tsguard.probes.signal import arrays, target_columns
from tsguard.probes.stage import flat

SAME = 1e-4
"""Change of the answers, over their spread, that summing in another order makes."""

LOST = 0.3
"""Explained variance of rows held back that must go when the steps of each row are dealt at random."""


@check("order that the model cannot see", codes=("under-capacity",), needs=("model", "arrays", "y"), cost=5)
def unseen_order(context: Context) -> Iterable[Finding]:
    """Answers that stay when timesteps are dealt anew, and targets that a fit reads off their order."""
    import torch

    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None:
        return
    windows = [x for x in leaves(bench.batch.x) if x.is_floating_point() and x.ndim == 3 and x.shape[1] >= 4]
    if len(windows) != 1 or len(list(leaves(bench.batch.x))) != 1 or not _deaf_to_order(bench, windows[0]):
        return
    made = arrays(context.data) if context.data is not None else None
    if made is None:
        return
    x = made[0][0].astype("float64")
    y = target_columns(made[1][0])
    if y.ndim != 2 or len(y) != len(x) or len(x) < 80:
        return
    order = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(1).numpy()
    dealt = x[_rows(x), order]
    seen, lost = explained(x, y), explained(dealt, y)
    if seen - max(lost, 0.0) > LOST:
        yield catalogue.finding(
            "under-capacity",
            f"the model answers the same when the {x.shape[1]} timesteps of a row are dealt in another order, for "
            f"every weight, and the targets hang on the order: a closed-form fit explains {seen:.0%} of rows held "
            f"back, with the steps dealt at random {max(lost, 0.0):.0%}. Let a layer see several steps at once: "
            "kernels of 3 and more, a recurrent layer, or positions added before attention.",
            where={"phase": "forward"},
            evidence=(Evidence("value", {"in order": seen, "dealt": lost}, name="R² on rows held back"),),
            score=0.9,
        )


def _rows(x: Any) -> Any:
    import numpy as np

    return np.arange(len(x))[:, None]


def _deaf_to_order(bench: Bench, x: Any) -> bool:
    import torch

    generator = torch.Generator().manual_seed(9)
    deaf = True
    for _ in range(2):
        draw_weights(bench.model, 1.0, generator)
        order = torch.randperm(x.shape[1], generator=generator).to(x.device)
        other = map_leaves(lambda leaf: leaf[:, order], bench.batch.x)  # noqa: B023 - called at once
        here, there = flat(predict(bench.model, bench.batch.x)), flat(predict(bench.model, other))
        if len(here) != 1 or here[0].ndim > 2:
            deaf = False
            break
        spread = float(here[0].float().std())
        deaf = deaf and float((here[0] - there[0]).float().abs().max()) <= SAME * max(spread, 1e-12)
    bench.start.restore()
    return deaf


def explained(x: Any, y: Any) -> float:
    import numpy as np

    columns = x.reshape(len(x), -1)
    columns = columns[:, :: columns.shape[1] // 200 + 1]
    return max(ridge_r2(columns, y), ridge_r2(np.concatenate([columns, curved_columns(columns, limit=40)], axis=1), y))
