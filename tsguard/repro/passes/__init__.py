"""Passes: each makes a Case smaller or plainer in one way, and keeps only what still fails with the same fingerprint.

They are verbs and know nothing of each other; the order in which they are tried is the engine's. Every pass is built so
that its candidates are valid by construction, or are simply not kept where the model refuses them.
"""

from __future__ import annotations

from collections.abc import Callable

from tsguard.repro.case import Case
from tsguard.repro.passes.batch import drop_samples, drop_weights_of_samples, shorten_sequence
from tsguard.repro.passes.layers import cut_prefix, cut_suffix
from tsguard.repro.passes.plain import forget_slots, forget_weights, simplify_optimizer, simplify_values
from tsguard.repro.passes.subset import Keep

PASSES: tuple[Callable[[Case, Keep], Case], ...] = (
    drop_samples,
    drop_weights_of_samples,
    forget_slots,
    forget_weights,
    cut_suffix,
    cut_prefix,
    forget_weights,
    shorten_sequence,
    simplify_optimizer,
    simplify_values,
    drop_samples,
)
"""Cheap and powerful first: fewer rows make everything after them faster."""
