"""Findings of checks as a few lines of NumPy, Keras and torch, which set `wrong` from `model`, `x` and `y`.

Only what is a statement about one step, or about one array, can be said so: weights without a gradient, tensors that no
optimizer knows, time that float32 cannot hold, a code for missing. Every other finding is asked of its check again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tsguard.backend import preserved, seed_everything
from tsguard.dataset import map_leaves
from tsguard.findings import Finding
from tsguard.repro import asked_data, asked_labels, asked_loss, asked_model, asked_pairs, asked_sight, asked_step
from tsguard.repro.case import Case
from tsguard.repro.graphs import REFUSALS, has_graph

Form = Callable[[Finding, Case], list[str] | None]


def form_of(finding: Finding, case: Case) -> Form | None:
    """The first form whose lines find the case wrong."""
    return next((form for form in FORMS.get(finding.code, ()) if lines_of(form, finding, case) is not None), None)


def lines_of(form: Form, finding: Finding, case: Case) -> list[str] | None:
    """The lines of a form; None where they cannot be written of a case, or do not find it wrong."""
    lines = written(form, finding, case)
    if lines and case.batch.y is None:
        lines = [line.replace("compute_loss(x, y, ", "compute_loss(x, None, ") for line in lines]
    if lines and any("model." in line for line in lines) and not (has_graph(case.model) or "model(x" in lines[0]):
        lines = ["model(x)", *lines]  # a class of the user's has its weights after its first call
    return lines if lines is not None and _wrong(lines, case) else None


def written(form: Callable[[Finding, Any], list[str] | None], finding: Finding, subject: Any) -> list[str] | None:
    """What a form says of a subject; None also where it was not made for such a one."""
    try:
        return form(finding, subject)
    except REFUSALS:
        return None


def home_of(lines: Sequence[str]) -> str:
    """Whose arrays the lines read: NumPy's where they name it, tensors elsewhere."""
    return "np" if any("np." in line for line in lines) else "keras.ops"


def _wrong(lines: list[str], case: Case, *, home: str = "") -> bool:
    read = (lambda leaf: leaf) if (home or home_of(lines)) == "np" else keras.ops.convert_to_tensor
    try:
        with preserved(case.model):
            given = {"x": map_leaves(read, case.batch.x), "y": map_leaves(read, case.batch.y)}
            if case.weights is not None:
                case.model.set_weights(list(case.weights))
            seed_everything(case.seed)
            return finds(lines, {"keras": keras, "model": case.model, "fit": case.fit, **given})
    except REFUSALS:
        return False


def finds(lines: Sequence[str], space: Mapping[str, Any]) -> bool:
    """Whether lines find something wrong; what they cannot be asked of is not wrong."""
    known = {"np": np, **space}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            exec("\n".join(lines), known)
    except REFUSALS:
        return False
    return bool(known["wrong"])


def of_any_arrays(lines: list[str], case: Case, names: str) -> list[str]:
    """The lines, with one before them that makes tensors of a mended model's arrays where they cannot do without.

    A loss of one's own may take arrays while it is sick and need tensors once it is mended.
    """
    own = type(case.model).compute_loss is not keras.Model.compute_loss
    if home_of(lines) == "np" or not names or (_wrong(lines, case, home="np") and not own):
        return lines
    several = f"({names})" if "," in names else names
    return [f"{names} = keras.tree.map_structure(keras.ops.convert_to_tensor, {several})", *lines]


FORMS: Mapping[str, tuple[Form, ...]] = {
    "amp-steps-skipped": (asked_step.scaled_beyond, asked_step.never_moved),
    "batch-coupling": (asked_step.carried_state, asked_step.batches_of_one, asked_step.company),
    "clip-saturated": (asked_step.cut_to_nothing, asked_step.cut_in_the_step),
    "data-constant": (
        asked_data.all_the_same,
        asked_data.one_target,
        asked_data.still_windows,
        asked_data.still_columns,
        asked_data.copied_columns,
        asked_data.copied_inputs,
    ),
    "data-imbalance": (asked_data.rare_class, asked_data.weights_of_other_classes),
    "data-labels": (
        asked_labels.odd_labels,
        asked_labels.rows_for_numbers,
        asked_labels.numbers_for_rows,
        asked_loss.dealt_targets,
        asked_labels.deaf_to_a_label,
        asked_labels.crossed_outputs,
    ),
    "data-leak": (
        asked_loss.copied_through,
        asked_loss.fed_its_answer,
        asked_data.target_inside,
        asked_data.steps_ahead,
        asked_data.drawn_ahead,
        asked_data.nearly_inside,
        asked_data.marked_class,
        asked_data.only_for_one_class,
    ),
    "data-mispaired": (
        asked_data.shifted,
        asked_data.sorted_apart,
        asked_data.joined_rows,
        asked_data.steps_behind,
        asked_pairs.in_another_order,
        asked_pairs.taught_in_stretches,
    ),
    "data-order": (asked_data.backwards,),
    "data-precision": (asked_data.time_in_float32, asked_data.lost_to_half),
    "data-scale": (
        asked_data.out_of_scale,
        asked_model.shut_by_inputs,
        asked_model.shut_calls_by_inputs,
        asked_loss.raw_inputs,
    ),
    "data-volume": (asked_step.same_loss,),
    "data-sentinel": (asked_data.code_for_missing,),
    "dead-units": (asked_model.dead_units, asked_model.dead_calls),
    "degenerate-attention": (asked_model.without_gradient,),
    "disconnected-parameters": (asked_model.without_gradient, asked_model.frozen_as_drawn, asked_model.unreached),
    "double-softmax": (
        asked_loss.costly_perfection,
        asked_labels.shares_made_again,
        asked_step.softmax_of_shares,
    ),
    "exploding-gradient": (asked_model.drowning_steps, asked_model.growing_steps),
    "gradient-accumulates": (asked_step.summed_gradients,),
    "init-scale": (asked_model.odd_gains,),
    "input-encoding": (
        asked_model.odd_ids,
        asked_model.ids_beyond,
        asked_model.ids_behind_a_mask,
        asked_data.swapped_axes,
        asked_model.channels_elsewhere,
        asked_model.kernel_beyond_its_axis,
        asked_step.reshaped_courses,
        asked_model.shut_by_numbers,
    ),
    "loss-broadcast": (
        asked_loss.dealt_targets,
        asked_loss.one_for_several,
        asked_loss.dealt_column,
        asked_step.crossed_rows,
        asked_step.dealt_in_a_step,
        asked_loss.shaped_otherwise,
    ),
    "loss-degenerate": (
        asked_loss.nothing_asked,
        asked_loss.nothing_asked_of_a_batch,
        asked_loss.bottomless,
        asked_loss.dealt_targets,
        asked_loss.turned_round,
        asked_loss.unheard_output,
        asked_loss.unheard_columns,
        asked_model.unreached,
    ),
    "loss-empty-selection": (asked_step.nothing_selected,),
    "loss-mismatch": (
        asked_labels.odd_labels,
        asked_loss.costly_perfection,
        asked_loss.dealt_targets,
        asked_loss.outweighed,
        asked_loss.silent_among_targets,
        asked_loss.of_any_size,
        asked_labels.alike_for_all_classes,
        asked_labels.first_of_the_row,
        asked_labels.one_of_many,
        asked_labels.numbered_classes,
        asked_loss.discouraged,
        asked_loss.faint,
    ),
    "loss-term-dominates": (asked_loss.loud_output, asked_loss.loud_term, asked_loss.loud_in_shared_weights),
    "lr-too-high": (asked_model.runs_away,),
    "lr-too-low": (asked_model.rate_taken_away, asked_model.stands_still),
    "mask-dropped": (asked_sight.padding_read,),
    "metric-disagrees": (asked_loss.far_constant,),
    "nondeterministic": (asked_step.drawn_anew,),
    "output-activation": (
        asked_loss.constant_answers,
        asked_loss.blind_answers,
        asked_loss.sums_over_another_axis,
        asked_loss.sums_beside_the_classes,
        asked_labels.shares_of_many,
        asked_labels.all_at_once,
        asked_loss.no_probability,
        asked_loss.costly_perfection,
        asked_loss.targets_beyond,
        asked_loss.wants_beyond,
    ),
    "over-regularised": (
        asked_model.heavy_penalty,
        asked_model.penalised_level,
        asked_model.heavy_dropout,
        asked_model.tight_constraint,
        asked_model.heavy_decay,
    ),
    "precision-overflow": (asked_step.spoilt_by_the_update, asked_model.breaks),
    "saturated-units": (asked_model.flat_units, asked_model.flat_gates, asked_model.flat_calls),
    "symmetric-init": (asked_model.units_that_stay_equal, asked_model.equal_units),
    "train-eval-gap": (asked_step.batches_of_one, asked_step.average_of_the_start),
    "transfer-nothing": (asked_model.no_counterpart, asked_model.one_row_for_all),
    "under-capacity": (
        asked_model.straight,
        asked_sight.unseen_order,
        asked_sight.unseen_level,
        asked_sight.unseen_cells,
        asked_sight.along_one_line,
        asked_sight.through_few_numbers,
    ),
    "untracked-parameters": (
        asked_model.strangers,
        asked_model.drawn_and_kept,
        asked_model.unmoved,
        asked_model.without_gradient,
    ),
    "vanishing-gradient": (
        asked_model.cut_at_every_step,
        asked_model.fading_gradient,
        asked_model.fading_both_ways,
        asked_model.unheard_steps,
    ),
}
"""By code; the first whose lines find the case wrong is the one that is written."""
