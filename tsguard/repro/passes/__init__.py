"""Passes: each makes a Case smaller or plainer in one way, and keeps only what still fails with the same fingerprint.

They are verbs and know nothing of each other; the order in which they are tried is the engine's. Every pass is built so
that its candidates are valid by construction, or are simply not kept where the model refuses them.
"""

from __future__ import annotations

from collections.abc import Callable

from tsguard.repro.case import Case
from tsguard.repro.passes.batch import drop_samples, drop_weights_of_samples, shorten_sequence
from tsguard.repro.passes.isolate import isolate_layer, take_predictions
from tsguard.repro.passes.layers import cut_prefix, cut_suffix
from tsguard.repro.passes.narrow import (
    bypass_layers,
    drop_features,
    drop_inputs,
    drop_outputs,
    freeze_layers,
    narrow_layers,
    simplify_dtype,
)
from tsguard.repro.passes.plain import forget_slots, forget_weights, make_values, simplify_optimizer, simplify_values
from tsguard.repro.passes.subset import Keep
from tsguard.repro.passes.terms import drop_loss_terms

Pass = Callable[[Case, Keep], Case]

PASSES: tuple[Pass, ...] = (
    drop_samples,
    drop_weights_of_samples,
    forget_slots,
    drop_outputs,
    drop_loss_terms,
    drop_inputs,
    take_predictions,
    isolate_layer,
    forget_weights,
    cut_suffix,
    cut_prefix,
    forget_weights,
    bypass_layers,
    narrow_layers,
    shorten_sequence,
    drop_features,
    simplify_optimizer,
    simplify_dtype,
    freeze_layers,
    simplify_values,
    drop_samples,
)
"""Rows, loss terms, model, timesteps, features, values: each makes those after it faster."""

CONFIGURATION: tuple[Pass, ...] = (
    drop_samples,
    forget_weights,
    bypass_layers,
    narrow_layers,
    shorten_sequence,
    drop_features,
    simplify_values,
    drop_samples,
)
"""Those that ask only whether something fails, and not where: for a check."""

__all__ = ["CONFIGURATION", "PASSES", "Keep", "Pass", "drop_samples", "make_values"]
