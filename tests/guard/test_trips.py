"""The rules keep still on healthy noise and speak on real trouble."""

import math

import numpy as np
import pytest

from tsguard.guard.trips import AmpSkips, JointRise, metric_disagrees, no_learning, of_the_batches, recovered


def heavy_tailed(seed, steps=300, sigma=0.5):
    rng = np.random.default_rng(seed)
    return (2.0 * np.exp(-np.arange(steps) / 100) + 0.2) * rng.lognormal(0, sigma, steps)


def rises(losses, gradients=None):
    rule = JointRise()
    gradients = [None] * len(losses) if gradients is None else gradients
    found = [rule.add(step, float(loss), grad) for step, (loss, grad) in enumerate(zip(losses, gradients, strict=True))]
    return [rise for rise in found if rise is not None]


def test_heavy_tailed_losses_of_healthy_runs_trip_at_most_twice_in_200():
    tripped = sum(bool(rises(heavy_tailed(seed))) for seed in range(200))
    assert tripped <= 2


def test_gradients_that_follow_a_heavy_tailed_loss_do_not_make_it_trip():
    def gradients(seed, losses):
        rng = np.random.default_rng(1000 + seed)
        return [float(g) for g in np.sqrt(losses) * rng.lognormal(0, 0.5, len(losses))]

    tripped = sum(
        bool(rises(losses, gradients(seed, losses))) for seed in range(200) for losses in [heavy_tailed(seed)]
    )
    assert tripped <= 2


def test_lasting_tenfold_rises_are_found_within_ten_steps():
    found = 0
    for seed in range(200):
        at = 50 + seed % 200
        losses = heavy_tailed(seed)
        losses[at:] *= 10
        found += any(at <= rise.step < at + 10 for rise in rises(losses))
    assert found >= 190


def test_one_wild_step_counts_only_together_with_its_gradient():
    losses = heavy_tailed(1, sigma=0.1)
    losses[150] *= 1e4
    quiet = [1.0 + 0.01 * (i % 7) for i in range(300)]
    assert rises(losses, quiet) == []
    quiet[150] = 1e4
    (rise,) = rises(losses, quiet)
    assert rise.step == 150
    assert not rise.lasting


def giants(seed, share, steps=300):
    """Losses of batches, a share of which holds a row that counts as much as thirty batches; their gradients follow."""
    rng = np.random.default_rng(seed)
    losses = (2.0 * np.exp(-np.arange(steps) / 100) + 0.2) * rng.lognormal(0, 0.2, steps)
    losses[rng.random(steps) < share] *= 30
    return losses, [float(g) for g in np.sqrt(losses)]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.15, 0.3, 0.45])
def test_batches_with_giants_among_the_targets_are_no_event(share):
    told = 0
    for seed in range(100):
        losses, gradients = giants(seed, share)
        points = list(enumerate(losses))
        told += any(not of_the_batches(points, rise) for rise in rises(losses, gradients))
    assert told <= 8


def test_a_run_with_giants_that_breaks_away_is_told():
    found = 0
    for seed in range(100):
        losses, _ = giants(seed, 0.05)
        losses[150:] *= 300
        told = rises(losses, [float(g) for g in np.sqrt(losses)])
        found += any(150 <= rise.step < 160 and rise.lasting and not recovered(losses, rise) for rise in told)
    assert found >= 95


def test_a_jump_that_takes_steps_to_come_back_is_told_however_often_it_comes():
    losses = heavy_tailed(1, sigma=0.1)
    for at in (120, 200, 260):
        losses[at : at + 12] *= np.geomspace(1e4, 10, 12)
    found = rises(losses, [float(g) for g in np.sqrt(losses)])
    points = list(enumerate(losses))
    assert found
    assert not any(of_the_batches(points, rise) for rise in found)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nonfinite_value_is_not_learned_from(bad):
    losses = heavy_tailed(3)
    losses[100] = bad
    assert rises(losses) == []
    losses[200:] *= 20
    assert any(200 <= rise.step < 210 for rise in rises(losses))


def test_a_rise_that_comes_back_is_told_from_one_that_stays():
    losses = heavy_tailed(4)
    losses[150:] *= 20
    (stays, *_) = rises(losses)
    assert not recovered(losses.tolist(), stays)
    losses[170:] /= 20
    (passes, *_) = rises(losses)
    assert recovered(losses.tolist(), passes)


def test_negative_losses_are_judged_too():
    rng = np.random.default_rng(0)
    assert rises(-3 + 0.3 * rng.normal(size=300)) == []


def test_a_scaler_that_searches_its_scale_is_left_alone_and_one_that_never_stops_is_not():
    healthy = AmpSkips()
    assert not any(healthy.add(skipped=step in (0, 1, 2, 900)) for step in range(2000))
    sick = AmpSkips()
    assert [sick.add(skipped=True) for _ in range(10)].index(True) == 9
    often = AmpSkips()
    assert any(often.add(skipped=step % 4 == 0) for step in range(400))


def test_no_learning_needs_a_flat_curve_and_enough_steps():
    rng = np.random.default_rng(0)
    flat = (0.7 + 0.01 * rng.normal(size=400)).tolist()
    assert no_learning(flat)
    assert not no_learning(flat[:50])
    assert not no_learning([2 * math.exp(-i / 100) + 0.1 for i in range(400)])


def test_a_metric_that_worsens_as_the_loss_improves_disagrees():
    loss = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45]
    assert metric_disagrees(loss, [0.9, 0.88, 0.8, 0.7, 0.65, 0.6, 0.55], "val_accuracy")
    assert not metric_disagrees(loss, [0.5, 0.6, 0.62, 0.7, 0.72, 0.8, 0.81], "val_accuracy")
    assert metric_disagrees(loss, [0.5, 0.6, 0.62, 0.7, 0.72, 0.8, 0.81], "val_mae")
    for one_sided in ("val_recall", "val_precision_1", "val_alarms_recall"):
        assert not metric_disagrees(loss, [0.9, 0.88, 0.8, 0.7, 0.65, 0.6, 0.55], one_sided)
    assert metric_disagrees(loss, [0.9, 0.88, 0.8, 0.7, 0.65, 0.6, 0.55], "val_recall_at_precision")
    assert not metric_disagrees(loss[:4], [0.9, 0.8, 0.7, 0.6], "val_accuracy")


def test_a_margin_that_is_kept_leaves_no_level_to_jump_from():
    rng = np.random.default_rng(0)
    hinge = np.where(rng.random(300) < 0.05, rng.uniform(0.01, 0.05, 300), 0.0)
    hinge[:40] = rng.uniform(0.2, 0.6, 40)
    assert rises(hinge, [float(g) for g in np.sqrt(hinge)]) == []
    hinge[200:] = 50.0
    assert any(rise.lasting for rise in rises(hinge))
