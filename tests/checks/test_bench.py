"""The bench: what is made ready once for all checks, and given back as it was."""

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.checks.bench import set_up
from tsguard.checks.registry import Check, Context
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject

X = np.random.default_rng(0).normal(size=(96, 5)).astype("float32")
DATA = Data(X, X[:, :1], batch_size=32)


class Counting(keras.Model):
    """A model that is built by its first call and counts its steps."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(1)
        self.steps = 0

    def call(self, x):
        return self.head(x)

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


def compiled():
    model = Counting()
    model.compile("adam", "mse")
    return model


def ask(model, *questions):
    checks = [Check(f"question {number}", ("off-plan",), one, ("data",)) for number, one in enumerate(questions)]
    context = Context(subject=Subject.from_model(model), data=DATA)
    run_checks(context, checks)
    return context


def test_checks_share_the_first_step_and_each_may_take_its_own():
    model, seen = compiled(), []

    def looks(context):
        seen.append(set_up(context))
        return []

    def steps(context):
        seen.append(set_up(context).again())
        return []

    ask(model, looks, looks, steps)
    assert seen[0].step is seen[1].step
    assert seen[2] is not seen[0].step
    assert seen[2].loss == seen[0].step.loss
    assert model.steps == 0, "what a step counts is put back"


def test_what_one_check_changes_no_other_sees():
    losses = []

    def changes(context):
        bench = set_up(context)
        for variable in bench.model.trainable_variables:
            variable.assign(variable.value * 0 + 7)
        return []

    def looks(context):
        bench = set_up(context)
        losses.append((bench.step.loss, bench.again().loss))
        return []

    ask(compiled(), looks, changes, looks)
    assert losses[0][0] == losses[0][1] == losses[1][0] == losses[1][1]


def test_a_model_that_was_not_built_is_not_built_afterwards():
    model = compiled()
    built = []

    def looks(context):
        built.append(context.model.head.built)
        return []

    ask(model, looks)
    assert built == [True]
    assert not model.head.built
    assert not model.optimizer.built


def test_a_step_that_raises_is_met_by_every_check_itself():
    class Raising(Counting):
        def train_step(self, data):
            raise ValueError("no step")

    model, errors = Raising(), []
    model.compile("adam", "mse")

    def looks(context):
        errors.append(set_up(context).step.error)
        return []

    ask(model, looks, looks)
    assert [str(error) for error in errors] == ["no step", "no step"]
    assert errors[0] is not errors[1]


def test_no_step_is_kept_when_the_asking_is_over():
    def looks(context):
        set_up(context)
        return []

    context = ask(compiled(), looks)
    first = set_up(context).step
    assert set_up(context).step is not first


@pytest.mark.parametrize("rows", [8, 16])
def test_another_number_of_rows_is_another_step(rows):
    sizes = []

    def looks(context):
        sizes.append((set_up(context).batch.rows, set_up(context, rows=rows).batch.rows))
        return []

    ask(compiled(), looks, looks)
    assert sizes == [(32, rows)] * 2
