"""What a person sees of a training: where it stands, what it learned, how long it takes, and what the guard says."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from tsguard.display import PLAIN_EVERY_S, Lines, Renewed, display, duration, in_words
from tsguard.train import progress
from tsguard.train.progress import Follow, Standing

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")


def followed(monkeypatch, **fit):
    monkeypatch.setattr(progress, "SHOWN_EVERY_S", 0.0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.125), "mse", metrics=["mae"])
    seen = []
    model.fit(X, X[:, :1], verbose=0, batch_size=8, callbacks=[Follow(seen.append, lambda: "guard: clean")], **fit)
    return seen


def test_every_step_and_epoch_has_its_place(monkeypatch):
    seen = followed(monkeypatch, epochs=2, validation_split=0.2)
    assert [(s.epoch, s.step, s.steps) for s in seen if not s.epoch_ended] == [
        (e, b, 4) for e in (0, 1) for b in (1, 2, 3, 4)
    ]
    ends = [s for s in seen if s.epoch_ended]
    assert [s.epoch for s in ends] == [0, 1]
    assert {"loss", "mae", "val_loss", "val_mae"} <= set(ends[0].metrics)
    assert ends[0].rate == 0.125
    assert ends[0].steps_per_s > 0
    lefts = [s.seconds_left for s in seen]
    assert lefts[-1] == 0
    assert all(left > 0 for left in lefts[:-2])


STANDING = Standing(
    epoch=1, epochs=3, step=10, steps=20, metrics={"mae": 0.5, "loss": 0.25, "val_loss": 1 / 3, "learning_rate": 0.1},
    rate=0.1, steps_per_s=12.3, seconds_left=600, guard="guard: clean", epoch_ended=True,
)  # fmt: skip


def test_one_line_holds_all_of_it():
    words = in_words(STANDING)
    assert words == (
        "epoch 2/3  step 10/20  loss 0.25  val_loss 0.3333  mae 0.5  rate 0.1  12.3 steps/s  10 min left  guard: clean"
    )


@pytest.mark.parametrize(("seconds", "words"), [(3, "3 s"), (300, "5 min"), (7300, "2 h 2 min")])
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_a_log_gets_a_line_for_each_epoch_and_a_sign_of_life_between():
    out, now = io.StringIO(), [0.0]
    shown = Lines(Console(file=out, width=60), clock=lambda: now[0])
    middle = Standing(epoch=0, epochs=3, step=5, steps=20)
    shown.told("preflight")
    shown.follow(middle)
    now[0] = PLAIN_EVERY_S + 1
    shown.follow(middle)
    shown.follow(STANDING)
    lines = out.getvalue().splitlines()
    assert [line[:9] for line in lines] == ["… preflig", "epoch 1/3", "epoch 2/3"]
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_bar_and_keeps_a_line_for_each_epoch():
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with display(quiet=False, console=console) as shown:
        assert isinstance(shown, Renewed)
        shown.told("preflight")
        shown.follow(Standing(epoch=1, epochs=3, step=10, steps=20, metrics={"loss": 0.25}, guard="guard: clean"))
        shown.follow(STANDING)
    text = out.getvalue()
    assert "━" in text
    assert "guard: clean" in text
    assert in_words(STANDING)[:30] in text


def test_quiet_says_nothing():
    out = io.StringIO()
    with display(quiet=True, console=Console(file=out)) as shown:
        shown.told("x")
        shown.follow(STANDING)
    assert out.getvalue() == ""
