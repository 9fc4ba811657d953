"""Runs side by side: who won where, and an honest word on which difference matters."""

import pytest

from tsguard.comparison import compare
from tsguard.render.comparing import compared
from tsguard.report import Provenance, Report


def run(name="r", config=None, metrics=None, **provenance):
    return Report(name=name, metrics=metrics or {}, provenance=Provenance(config=config or {}, **provenance))


BASE = {"seed": 1, "train": {"epochs": 3, "batch_size": 32}, "optimizer": {"learning_rate": 0.01}, "name": "a"}


def with_(**changes):
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            tree[section][field] = value
        else:
            tree[section] = value
    return run(config=tree)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (
            [with_(optimizer__learning_rate=0.003)],
            "`optimizer.learning_rate` (0.01 → 0.003) is the only recorded setting",
        ),
        ([with_(optimizer__learning_rate=0.003, seed=2)], "(0.01 → 0.003) and the seed is the only recorded setting"),
        ([with_(seed=2)], "Only the seed differs"),
        ([with_(train__epochs=9, optimizer__learning_rate=1.0)], "2 settings that can move a metric differ at once"),
        ([with_(name="b")], "Nothing recorded that can move a metric differs"),
        ([run()], "Not every report (1 of 2) holds the settings"),
        ([run(config=BASE, versions={"keras": "3.13"})], "versions, commit or machine do"),
    ],
)
def test_the_difference_that_matters_is_named_no_surer_than_it_is(others, words):
    assert words in compare(with_(), *others).likely


def test_reports_without_settings_are_not_said_to_be_alike():
    assert "cannot be told" in compare(run(), run()).likely


def test_other_versions_are_told_beside_the_setting():
    found = compare(with_(), run(config={**BASE, "seed": 2}, device="cuda"))
    assert found.likely.endswith("Versions, commit or machine differ as well.")


METRICS = {"loss": 0.2, "val_loss": 0.3, "val/r2": 0.5, "train/r2": 0.6, "r2": 0.5, "duration_min": 2.0, "own": 1.0}


def test_validation_training_and_cost_stand_apart_and_nothing_stands_twice():
    better = {**METRICS, "val_loss": 0.1, "val/r2": 0.7, "r2": 0.7, "duration_min": 3.0}
    found = compared(compare(run("a", metrics=METRICS), run("b", metrics=better)))
    tables = {title: [row.name for row in rows] for title, rows in found.tables}
    assert tables == {
        "On the validation part": ["val_loss", "r2"],
        "On the training part": ["loss", "r2"],
        "Metrics": ["own"],
        "What it took": ["duration_min"],
    }
    assert found.wins == "b is best in every one of 2 metrics on the validation part."


def test_a_split_decision_is_told_with_its_parts():
    other = {**METRICS, "val_loss": 0.1, "val/r2": 0.4}
    found = compared(compare(run("a", metrics=METRICS), run("b", metrics=other)))
    assert found.wins == "a is best in 1 of 2 metrics on the validation part (r2), b in 1."


def test_values_of_different_losses_are_not_compared():
    first = run("a", {"loss": "mse"}, {"loss": 0.5, "val/r2": 0.1})
    second = run("b", {"loss": "mae"}, {"loss": 0.1, "val/r2": 0.3})
    found = compared(compare(first, second))
    rows = {row.name: row.best for _, table in found.tables for row in table}
    assert rows["loss"] is None
    assert rows["r2"] == 1
    assert "different losses" in found.likely


def test_three_runs_are_held_side_by_side():
    found = compare(*(run(str(rate), {"optimizer": {"learning_rate": rate}}, {"val_loss": rate}) for rate in (1, 2, 3)))
    assert found.metrics[0].best == 0
    assert "(1 → 2 → 3)" in found.likely
