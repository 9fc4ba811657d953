"""Counterexamples as small grids: what is padded, what changed, where the answer moved."""

from tests.render.reports import batch, counterexample
from tsguard import catalogue
from tsguard.evidence import Evidence
from tsguard.render.grids import ROWS_MAX, STEPS_MAX, grids


def of(before, after, **where):
    sides = [Evidence("batch", before, "before"), Evidence("batch", after, "after")]
    return grids(catalogue.finding("pad-leak-value", "m", where=where, evidence=sides))


def test_valid_padded_and_changed_cells_are_told_apart():
    values, mask = grids(counterexample())
    [(label, cells)] = values.rows
    assert label == "sample 0, feature 0"
    assert [cell.kind for cell in cells] == ["valid", "valid", "valid", "changed"]
    assert (cells[3].before, cells[3].text) == ("0", "7.5")
    assert values.moved == 2
    assert [cell.text for cell in mask.rows[0][1]] == ["✓", "✓", "✓", "·"]


def test_padding_is_marked_where_nothing_changed_in_it():
    sides = batch([1.0, 0.0], [True, False])
    values, _ = of(sides, sides)
    assert [cell.kind for cell in values.rows[0][1]] == ["valid", "padded"]
    assert values.moved is None


def test_steps_that_only_the_second_batch_has_are_added():
    values, _ = of(batch([1.0], [True]), batch([1.0, 0.0], [True, False]))
    assert [cell.kind for cell in values.rows[0][1]] == ["valid", "added"]


def test_what_is_too_large_is_cut_and_says_so_with_the_change_in_sight():
    size, steps = 3 * ROWS_MAX, 2 * STEPS_MAX
    old = [[0.0] * steps for _ in range(size)]
    new = [list(row) for row in old]
    new[-1][0] = 1.0
    [grid] = of({"x": {"values": old, "dtype": "float32"}}, {"x": {"values": new, "dtype": "float32"}})
    assert len(grid.rows) == ROWS_MAX
    assert grid.rows[0][0] == f"sample {size - 1}"
    assert grid.more == f"{size - ROWS_MAX} more rows and {steps - STEPS_MAX} more steps"


def test_nan_that_stays_is_no_change_and_digests_are_not_drawn():
    nan = {"x": {"values": [[float("nan")]], "dtype": "float32"}, "big": {"shape": [9], "sha256": "ab"}}
    [grid] = of(nan, nan)
    assert grid.rows[0][1][0].kind == "valid"
    assert grids(catalogue.finding("lr-too-high", "m")) == ()
    assert of({"x": 3}, {"x": {"values": [[[[1.0]]]]}}) == ()
