"""Recipes that rebuild, here and in another process; and words for what cannot be."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tsguard.dataset import Data
from tsguard.errors import ConfigError, SubjectError
from tsguard.subject import Recipe, Subject, clone, why_not_rebuildable

DEMO = Recipe("tsguard.demo.subject:build", {"width": 16})


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("no_colon", "package.module:function"),
        ("not_there_at_all:build", "'not_there_at_all'"),
        ("tsguard.not_there:build", "'tsguard.not_there'"),
        ("tsguard.demo.subject:bild", "build"),
        ("tsguard.demo.subject:STEPS", "a function"),
    ],
)
def test_import_paths_that_lead_nowhere_say_which_half_is_wrong(use, expected):
    with pytest.raises(ConfigError, match=r"model\.use") as caught:
        Recipe(use, place="model.use").load()
    assert expected in str(caught.value)


def test_arguments_that_are_not_taken_are_named():
    with pytest.raises(ConfigError, match=r"arguments among: sick, width"):
        Recipe("tsguard.demo.subject:build", {"depth": 3}, "model.use").make()


def test_an_error_inside_the_function_stays_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_module_x.py").write_text("import module_that_is_missing_y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing_y"):
        Recipe("broken_module_x:build").load()


@pytest.mark.slow
def test_a_subject_is_rebuilt_bit_equal_in_another_process():
    code = (
        "import hashlib, sys\nfrom tsguard.subject import *\n"
        "subject = Subject.from_recipes(Recipe('tsguard.demo.subject:build', {'width': 16}), seed=5)\n"
        "print(hashlib.sha256(b''.join(w.tobytes() for w in subject.rebuild().get_weights())).hexdigest())"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == 64


def test_rebuilding_gives_models_that_share_nothing():
    subject = Subject.from_recipes(DEMO, seed=5)
    first, second = subject.rebuild(), subject.rebuild()
    for left, right in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    first.set_weights([weight + 1 for weight in first.get_weights()])
    assert not np.array_equal(first.get_weights()[0], second.get_weights()[0])


def compiled(model):
    model.compile(keras.optimizers.Adam(), "mse")
    return model


def test_a_clone_has_weights_and_optimizer_state():
    inputs = keras.Input((4, 2))
    model = compiled(keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(3)(inputs))))
    x, y = np.ones((8, 4, 2), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, verbose=0)
    copy = clone(model)
    for left, right in zip(model.optimizer.variables, copy.optimizer.variables, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    np.testing.assert_array_equal(model.predict(x, verbose=0), copy.predict(x, verbose=0))
    assert why_not_rebuildable(model) is None


def test_a_local_class_cannot_be_rebuilt_elsewhere_and_says_so():
    class Local(keras.layers.Layer):
        def call(self, x):
            return x

    model = compiled(keras.Sequential([keras.Input((2,)), Local(), keras.layers.Dense(1)]))
    assert "<locals>" in why_not_rebuildable(model)


def test_what_is_no_compiled_model_is_answered_in_words():
    with pytest.raises(SubjectError, match="not compiled"):
        Subject.of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    with pytest.raises(SubjectError, match="a compiled keras"):
        Subject.of(3)


@pytest.mark.parametrize(
    "value",
    [
        {"x": np.zeros((3, 2)), "y": np.zeros(3), "validation_data": (1, 2)},
        (np.zeros((3, 2)), np.zeros(3)),
        Data(np.zeros((3, 2))),
    ],
)
def test_data_functions_may_return_any_of_the_usual_forms(value):
    assert len(Data.of(value)) == 3


def test_other_returns_are_refused():
    with pytest.raises(ConfigError, match="'x'"):
        Data.of({"X": 1})
    with pytest.raises(ConfigError, match="tuple"):
        Data.of([1, 2])


def test_batches_keep_the_users_structure():
    data = Data({"a": np.arange(10), "m": np.arange(10)}, [np.arange(10)], batch_size=4)
    batches = list(data.batches())
    assert [len(x["a"]) for x, _, _ in batches] == [4, 4, 2]
    assert isinstance(batches[0][1], list)
    assert list(Data([(1, 2), (3, 4)]).batches(1)) == [(1, 2, None)]
