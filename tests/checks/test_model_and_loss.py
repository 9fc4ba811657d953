"""One contract for all checks of model, loss and first steps: a sick program's fault is named, its twin is spared."""

import pytest

from tests.checks.programs import CASES
from tsguard.checks.registry import all_checks
from tsguard.checks.runner import run_checks

OTHERS = {"step", "data", "laws", "plan"}
"""Modules of checks that ask about something else, and have tests of their own."""


def asked(context, code=None):
    checks = [one for one in all_checks() if one.ask.__module__.rsplit(".", 1)[-1] not in OTHERS]
    checks = [one for one in checks if code is None or code in one.codes]
    return run_checks(context, checks, budget_s=20)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.build.__name__)
def test_a_sick_program_is_named(case):
    found = [f for f in asked(case.context(sick=True), case.code) if f.status in ("WARN", "FAIL", "ERROR")]
    named = [f for f in found if f.code == case.code]
    assert named, [(f.code, f.message) for f in found]
    assert case.says in " ".join(f.message for f in named)
    assert all(f.status != "ERROR" for f in found), [f.message for f in found if f.status == "ERROR"]
    assert named[0].remedy


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.build.__name__)
def test_its_twin_is_left_alone(case):
    found = [f for f in asked(case.context(sick=False)) if f.status in ("WARN", "FAIL", "ERROR")]
    assert not found, [(f.code, f.status, f.message) for f in found]


def test_asking_changes_no_bit_of_the_model_and_no_generator():
    import numpy as np
    import torch

    case = next(c for c in CASES if c.build.__name__ == "no_reset")
    context = case.context(sick=False)
    context.model(np.zeros((1, 5), "float32"))
    before = [v.value.detach().clone() for v in context.model.variables]
    generators = torch.get_rng_state()
    asked(context)
    assert all(torch.equal(a, v.value) for a, v in zip(before, context.model.variables, strict=True))
    assert torch.equal(generators, torch.get_rng_state())
    assert not context.model.optimizer.built


@pytest.mark.parametrize("name", ["no_reset", "gradient_cut", "closed_output", "deep_sigmoids"])
def test_the_answer_does_not_depend_on_the_seed(name):
    import keras

    case = next(c for c in CASES if c.build.__name__ == name)
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        model = case.build(True)[0]
        context = case.context(sick=True)
        context.subject = context.subject.of(model, data=context.data)
        assert case.code in {f.code for f in asked(context, case.code) if f.status == "FAIL"}


def test_a_model_whose_step_fails_is_not_called_healthy():
    import keras
    import numpy as np
    from keras import layers

    from tsguard.checks.registry import Context
    from tsguard.dataset import Data
    from tsguard.subject import Subject

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(loss="mse")
    data = Data(np.zeros((8, 7), "float32"), np.zeros((8, 1), "float32"))
    found = asked(Context(subject=Subject.from_model(model, data), data=data), "disconnected-parameters")
    silent = [f for f in found if f.code == "disconnected-parameters"]
    assert silent
    assert all(f.status == "NOT_RUN" for f in silent)
    assert "fails" in silent[0].message


def test_ids_are_looked_at_where_data_comes_in_batches():
    import keras
    import numpy as np
    from keras import layers

    from tsguard.checks.registry import Context
    from tsguard.dataset import Data
    from tsguard.subject import Subject

    class Batches(keras.utils.PyDataset):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def __len__(self):
            return 3

        def __getitem__(self, number):
            ids = np.random.default_rng(number).integers(0, 20, (16, 5))
            return (ids / self.scale).astype("float32"), (ids[:, :1] / 20).astype("float32")

    for scale, expected in ((7.3, "FAIL"), (1.0, "PASS")):
        model = keras.Sequential([layers.Embedding(20, 4), layers.Flatten(), layers.Dense(1)])
        model.compile(optimizer="adam", loss="mse")
        data = Data(Batches(scale))
        found = asked(Context(subject=Subject.from_model(model, data), data=data), "input-encoding")
        assert {f.status for f in found if "PASS" in f.status or f.check.startswith("ids")} >= {expected}
