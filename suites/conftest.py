"""What the suites of laws judge: the run that `--run` names, otherwise small healthy models of the zoo."""

from __future__ import annotations

from dataclasses import replace

import pytest

DEFAULTS = ("pooling_without_mask", "attention_mask_over_queries", "mask_lost_before_the_loss", "centred_convolution")
"""Healthy twins that together have every kind of mask and output: pooled, per step, implicit, causal."""


@pytest.fixture(scope="session")
def laws_of(request):
    """A function from names of laws to their results: one result a law, the worst over the models judged."""
    from tsguard import backend, laws

    backend.require_torch()

    def ask(names):
        if request.config.getoption("tsguard_run", None):
            subject = request.getfixturevalue("opened_run").subject
            return laws.run(subject.model(), subject.data, subject.padding, only=names)
        worst = {}
        for name, model, data, padding in healthy_models():
            for row in laws.run(model, data, padding, only=names):
                row = replace(row, reason=f"{name}: {row.reason}")
                if row.law not in worst or SEVERITY.index(row.outcome) > SEVERITY.index(worst[row.law].outcome):
                    worst[row.law] = row
        return list(worst.values())

    return ask


@pytest.fixture
def must_hold(record_finding):
    """A function that puts one law's answer on the suite's page and fails where the law is broken."""
    from tsguard.checks.laws import findings_of

    def hold(rows, law):
        row = rows[law]
        named = [f for f in findings_of(rows.values()) if f.where.get("law") == law]
        for finding in named or findings_of([row]):
            record_finding(finding)
        if row.outcome == "not-applicable":
            pytest.skip(row.reason)
        assert row.outcome == "holds", row.reason

    return hold


SEVERITY = ("not-applicable", "holds", "broken", "crashed")


def healthy_models():
    """Name, model, data and padding of each model that is judged when no run is named."""
    from fixtures.padding import ZOO

    for name in DEFAULTS:
        twin = ZOO[name].build(sick=False)
        yield name, twin.model, {"x": twin.x, "y": twin.y}, twin.padding
