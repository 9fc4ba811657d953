"""The incidents of the field: tsguard names what was true and does not repeat what was believed.

Only what can be known before training is asked here, so that the suite is quick; `benchmarks/diagnosis.py` and the page
on diagnosis show the whole sessions.
"""

from __future__ import annotations

import pytest

from fixtures import incidents
from fixtures.program import Program
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.findings import causes
from tsguard.subject import Subject

KNOWN_BEFORE_TRAINING = {
    ("cloud", "level_missed"),
    ("cloud", "nan_shown_as_constant"),
    ("duet", "empty_masked_patches"),
    ("duet", "nan_replaced_by_zero"),
    ("duet", "order_head_made_late"),
    ("moola", "attention_over_one_step"),
    ("moola", "majority_share"),
    ("moola", "transfer_that_loads_nothing"),
    ("moola", "wrong_file"),
    ("ss4rec", "timestamps_in_float32"),
    ("tft", "groups_of_one"),
    ("tft", "mask_value_overflows_half"),
}
"""Mechanisms that can be seen in model, data and plan alone."""

pytestmark = pytest.mark.filterwarnings("ignore")


def preflight(program: Program):
    data = Data(
        program.x,
        program.y,
        sample_weight=program.fit.get("sample_weight"),
        validation=program.validation_data,
        batch_size=program.fit.get("batch_size") or 32,
    )
    context = Context(
        subject=Subject.from_model(program.model, data),
        data=data,
        declared=program.declared or {},
        facts={"fit": program.fit},
    )
    return run_checks(context, [one for one in all_checks() if one.cost < 8])


def entries():
    return [one for one in incidents.variants() if (one.incident, one.name) in KNOWN_BEFORE_TRAINING]


@pytest.mark.parametrize("entry", entries(), ids=lambda one: f"{one.incident}-{one.name}")
def test_the_true_cause_is_named_and_not_the_belief(entry):
    found = [f.code for f in causes(preflight(entry.sick()))]
    assert found
    assert found[0] in entry.truth.codes, found
    assert found[0] not in entry.truth.belief_codes


@pytest.mark.parametrize("entry", entries(), ids=lambda one: f"{one.incident}-{one.name}")
def test_the_mended_variant_is_not_accused_of_it(entry):
    failed = {f.code for f in preflight(entry.healthy()) if f.status == "FAIL"}
    assert not failed & set(entry.truth.codes)
