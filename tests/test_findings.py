"""The lattice of statuses, and the order in which findings are read."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsguard.evidence import Curve, Proof
from tsguard.findings import Finding, Role, Status, causes, ranked, worst

statuses = st.sampled_from(Status)
CHAIN = ["NOT_RUN", "PASS", "WARN", "FAIL", "ERROR"]


def made(code="lr-too-high", status="FAIL", role="cause", **more):
    return Finding(code, status, role, "message", **more)


def test_statuses_form_the_documented_chain():
    assert [str(status) for status in sorted(Status, key=lambda s: s.severity)] == CHAIN
    for low, high in itertools.pairwise(CHAIN):
        assert Status(low) < high
        assert Status(high) > low
        assert Status(low) <= Status(low)
        assert not Status(high) <= low


def test_statuses_and_roles_compare_with_strings():
    finding = made()
    assert finding.status == "FAIL"
    assert finding.role == "cause"
    assert str(finding.status) == "FAIL"


@given(st.lists(statuses), st.lists(statuses), st.lists(statuses))
def test_worst_is_associative_commutative_idempotent_with_not_run_as_unit(a, b, c):
    assert worst([worst(a + b), worst(c)]) == worst([worst(a), worst(b + c)])
    assert worst(a + b) == worst(b + a)
    assert worst(a + a) == worst(a)
    assert worst([worst(a), Status.NOT_RUN]) == worst(a)


@given(st.lists(statuses), statuses)
def test_worst_never_falls_when_a_finding_is_added(some, one):
    assert worst([*some, one]) >= worst(some)


def test_worst_agrees_with_the_table_in_the_docstring():
    from tsguard import findings

    rows = [line.split() for line in findings.__doc__.splitlines() if line.strip().startswith(tuple(CHAIN))]
    table = {row[0]: row[1:] for row in rows if len(row) == 6}
    assert set(table) == set(CHAIN)
    for left, row in table.items():
        for right, joined in zip(CHAIN, row, strict=True):
            assert worst([left, right]) == joined


def test_nothing_at_all_is_not_a_pass():
    assert worst([]) == "NOT_RUN"


def test_a_place_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="unknown place"):
        made(where={"planet": "earth"})


def test_a_proven_cause_comes_before_a_likely_one_and_both_before_symptoms():
    proof = Proof("rate ÷10", "healed", Curve("a", (0,), (1,)), Curve("b", (0,), (0,)), effect=1.0)
    symptom = made("divergence", role="symptom")
    likely, proven, warned = made(score=0.9), made("data-scale", proof=proof), made("dead-units", "WARN")
    order = ranked([symptom, warned, likely, proven])
    assert [f.code for f in order] == ["data-scale", "lr-too-high", "dead-units", "divergence"]
    assert [f.code for f in causes(order)] == ["data-scale", "lr-too-high", "dead-units"]


def test_a_passing_cause_is_no_cause():
    assert causes([made(status="PASS"), made(status="NOT_RUN"), made(status="ERROR")]) == ()


def test_findings_are_frozen():
    with pytest.raises(AttributeError):
        made().code = "other"


def test_role_names_are_the_vocabulary():
    assert [str(role) for role in Role] == ["cause", "symptom", "note"]
