"""What a finished model answers, as numbers for the page: answers against truth, classes confused, courses over time.

Everything is cut to what a picture can show; the model is asked once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsguard.probes.answers import Head, heads, predict, question
from tsguard.probes.predictions import classes_of
from tsguard.probes.score import of_output
from tsguard.probes.stage import Batch

DRAWN = 400
"""Predictions kept for the page's figures: more are a cloud to the eye and kilobytes to the file."""

CLASSES_MAX = 64
"""Classes of a confusion that is kept: its square is what costs."""

COURSES = ("best", "typical", "worst")
"""Samples whose course is drawn, by their error."""

COURSE_MIN, COURSE_MAX = 4, 200
"""Places that an answer needs to be a course, and of which it is cut."""


def of_answers(model: Any, batch: Batch) -> dict[str, Any]:
    """Figures of the first output that has a target; none where the model does not answer."""
    try:
        answer = predict(model, batch.x)
    except Exception:  # a user's model may refuse inference; then there is nothing to draw
        return {}
    head = next((one for one in heads(model, batch, answer) if one.target is not None), None)
    if head is None:
        return {}
    metrics, kind = of_output(head, head.target)
    predicted = head.answer.detach().float().cpu().numpy()
    true = head.target.detach().cpu().numpy()
    if kind == "classes":
        return {} if "most_answered" not in metrics else confusion(predicted, true, logits=_logits(head))
    if predicted.size != true.size:
        return {}
    found = {"predicted_true": {**_points(predicted, true), "own_loss": _own(head)}}
    courses = _courses(predicted, true)
    return {**found, "courses": courses} if courses else found


def _logits(head: Head) -> bool:
    return head.loss is not None and question(head.loss).from_logits


def _own(head: Head) -> bool:
    """Whether the loss is the user's own, which may ask for something else than these targets."""
    return head.loss is None or question(head.loss).kind == "own"


def _points(predicted: Any, true: Any) -> dict[str, list[float]]:
    pick = np.unique(np.linspace(0, predicted.size - 1, min(predicted.size, DRAWN)).astype(int))
    return {"true": true.reshape(-1)[pick].tolist(), "predicted": predicted.reshape(-1)[pick].tolist()}


def confusion(predicted: Any, true: Any, *, logits: bool = False) -> dict[str, Any]:
    """How often each class was taken for which: {"confusion": {"classes": [...], "counts": [[...]]}}."""
    chosen, wanted = classes_of(predicted, true, from_logits=logits)
    names = np.unique(np.concatenate([wanted, chosen]))
    if not len(names) or len(names) > CLASSES_MAX or len(chosen) != len(wanted):
        return {}
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (np.searchsorted(names, wanted), np.searchsorted(names, chosen)), 1)
    return {"confusion": {"classes": [int(name) for name in names], "counts": counts.tolist()}}


def _courses(predicted: Any, true: Any) -> list[dict[str, Any]]:
    """Answer and truth over the places of the output, of the best, a typical and the worst sample."""
    if true.ndim == 3 and true.shape[-1] == 1:
        true = true[..., 0]
    if true.ndim not in (2, 3) or len(true) < 2 or true.shape[1] < COURSE_MIN:
        return []
    # Of several features the first is drawn; samples are ordered by the error in all of them.
    answers = predicted.reshape(true.shape)
    with np.errstate(all="ignore"):  # answers of a run that ran away overflow, and are left out below
        error = np.sqrt(np.mean((answers - true).reshape(len(true), -1).astype("float64") ** 2, axis=1))
    known = np.flatnonzero(np.isfinite(error))
    if len(known) < len(COURSES):
        return []
    order = known[np.argsort(error[known], kind="stable")]
    made = []
    for name, sample in zip(COURSES, (order[0], order[len(order) // 2], order[-1]), strict=True):
        first = (slice(0, COURSE_MAX),) if true.ndim == 2 else (slice(0, COURSE_MAX), 0)
        made.append(
            {
                "name": name,
                "sample": int(sample),
                "rmse": float(error[sample]),
                "true": true[sample][first].astype(float).tolist(),
                "predicted": answers[sample][first].astype(float).tolist(),
            }
        )
    return made
