"""What a check finds without training comes back on as little model and data as it needs."""

import keras
import numpy as np
import pytest
from keras import layers

import tsguard
from tests.repro.programs import run
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.repro.find import other_case
from tsguard.repro.recheck import told
from tsguard.subject import Subject


def attending(*, over_time):
    """Attention over the last state alone is a softmax of one."""
    keras.utils.set_random_seed(0)
    window = keras.Input((12, 2))
    states = layers.LSTM(6, return_sequences=over_time)(window)
    states = states if over_time else layers.Reshape((1, 6))(states)
    h = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(states, states))
    model = keras.Model(window, layers.Dense(3, activation="softmax")(h))
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    return model, rng.normal(size=(64, 12, 2)).astype("float32"), rng.integers(0, 3, 64)


def found(model, x, y, code):
    context = Context(subject=Subject.from_model(model), data=Data(x, y))
    asked = [one for one in all_checks() if code in one.codes and "laws" not in one.name]
    return context, [f for f in run_checks(context, asked) if f.code == code and f.status == "FAIL"]


@pytest.mark.slow
def test_a_finding_of_a_check_becomes_a_script(tmp_path):
    model, x, y = attending(over_time=False)
    context, findings = found(model, x, y, "degenerate-attention")
    case = other_case(findings, model=model, data=Data(x, y), name="attention", budget_s=30, context=context)
    assert case.size < case.original_size / 50
    script = case.save(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "confirmed in a fresh process | yes" in page
    assert "needs | tsguard" not in page, "weights without a gradient are a question of a few lines"
    text = script.read_text()
    (tmp_path / "mended.py").write_text(
        "import keras\nfrom tests.repro.test_recheck import attending\n\n"
        "def build():\n    return attending(over_time=True)\n"
    )
    assert "MultiHeadAttention(1" in text, "the heads are narrowed"
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


def test_a_healthy_model_is_told_nothing():
    model, x, y = attending(over_time=True)
    assert told("wiring", "degenerate-attention", model, x, y) == ""
    assert told("wiring", "degenerate-attention", *attending(over_time=False)) != ""


def test_a_plain_guard_knows_the_arrays_of_its_fit():
    from tsguard.repro.find import recorded_arrays

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((10, 2), "float32"), np.ones((10, 1), "float32")
    guard = tsguard.Guard(out=None, repro=False)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[guard])
    data = recorded_arrays(guard.report.source)
    assert data.is_arrays
    assert len(data) == 10
    assert data.batch_size == 4
