"""How much of the targets a trained model explains, as lines that set `share` from `answers` and `y`.

They say what the diagnosis measures: of values the part of their variance, of classes the hits beyond the commonest
class, and where nearly all belong to one class the hits of the class that is met least.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsguard.backend import preserved
from tsguard.dataset import leaves, map_leaves
from tsguard.probes.answers import heads, labels_of, predict, question
from tsguard.probes.score import RARE, of_output
from tsguard.probes.stage import Batch, as_tensor
from tsguard.repro.code.arrays import plain


def lines_of(model: Any, x: Any, y: Any) -> list[str]:
    """The lines; several outputs are as good as the worst of them."""
    listed = heads_of(model, x, y)
    if not isinstance(y, Mapping):
        return _share(listed[0], "answers", "y")
    lines = ["shares = []"]
    for head in listed:
        name = plain(head.name)
        lines += [*_share(head, f"answers[{name}]", f"y[{name}]"), "shares.append(share)"]
    plainly = [_share(head, "answers[name]", "y[name]") for head in listed]
    if all(one == plainly[0] and len(one) == 1 for one in plainly) and len(list(leaves(y))) == len(listed):
        return [f"share = min({plainly[0][0].removeprefix('share = ')} for name in y)"]
    return [*lines, "share = min(shares)"]


def heads_of(model: Any, x: Any, y: Any) -> list[Any]:
    """The outputs that have a target, each with its loss."""
    with preserved(model):
        batch = Batch(map_leaves(as_tensor, x), map_leaves(as_tensor, y), None)
        answer = predict(model, batch.x)
        model.compute_loss(batch.x, batch.y, answer)  # a compiled loss knows its outputs only once it was asked
        return [head for head in heads(model, batch, answer) if head.target is not None]


def _share(head: Any, answers: str, y: str) -> list[str]:
    metrics, kind = of_output(head, head.target)
    if kind != "classes":
        return [f"share = 1 - np.square({answers}.reshape({y}.shape) - {y}).mean() / {y}.var()"]
    units = int(head.answer.shape[-1]) if head.answer.ndim > 1 else 1
    written = labels_of(head.target)
    asked = question(head.loss) if head.loss is not None else None
    border = 0 if asked is not None and asked.from_logits else 0.5
    if asked is not None and asked.kind == "binary" and units > 1 and written == "binary":
        return [
            f"right = (({answers} > {border}) == ({y} > 0.5)).mean()",
            f"common = max({y}.mean(), 1 - {y}.mean())",
            "share = (right - common) / (1 - common)",
        ]
    if units > 1:
        first = [  # mended targets may be written the other way
            f"truth = ({y}.argmax(-1) if {y}.shape == {answers}.shape else {y}).reshape(-1)",
            f"right = {answers}.argmax(-1).reshape(-1) == truth",
        ]
        truth = "truth"
    else:
        truth = f"{y}.reshape(-1)" if head.target.ndim > 1 else y
        first = [f"right = ({answers}.reshape(-1) > {border}) == {truth}"]
    if metrics["majority_share"] < RARE:
        common = f"np.unique({truth}, return_counts=True)[1].max() / len(right)"
        return [*first, f"common = {common}", "share = (right.mean() - common) / (1 - common)"]
    return [*first, f"share = min(right[{truth} == label].mean() for label in np.unique({truth}))"]
