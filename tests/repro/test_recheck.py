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
from tsguard.repro import find
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


@pytest.mark.slow
def test_a_sequential_that_was_not_told_its_input_is_reduced_and_written(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)
    context, findings = found(model, x, y, "double-softmax")
    case = other_case(findings, model=model, data=Data(x, y), name="open", budget_s=30, context=context)
    text = case.save(tmp_path).read_text()
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    assert "tsguard" not in text
    assert "Dense(8" not in text
    assert not model.built, "left as it was found"


@pytest.mark.slow
def test_what_a_check_knows_of_the_run_goes_along():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-8), "mse")
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    fit = {"epochs": 10, "batch_size": 16, "verbose": 0}
    context = Context(subject=Subject.from_model(model), data=Data(x, y), facts={"fit": fit})
    asked = [one for one in all_checks() if "lr-too-low" in one.codes]
    findings = [one for one in run_checks(context, asked) if one.code == "lr-too-low" and one.status == "FAIL"]
    case = other_case(findings, model=model, data=Data(x, y), name="slow", budget_s=60, context=context)
    text = case.makers[0]().files["repro.py"].decode()
    assert "tsguard" not in text
    assert case.size < case.original_size / 5


def test_a_transfer_that_finds_no_place_is_told_by_shapes():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 2)), layers.Conv1D(6, 3, name="encoder"), layers.Flatten()])
    model.add(layers.Dense(1))
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(32, 12, 2)).astype("float32")
    data = Data(x, x[:, :1, 0])
    source = [np.ones((3, 2, 12), "float32"), np.ones((12,), "float32")]
    plan = {"transferred_from": source, "transferred_into": "encoder"}
    context = Context(subject=Subject.from_model(model), data=data, declared=plan)
    findings = run_checks(context, [one for one in all_checks() if "transfer-nothing" in one.codes])
    assert [one.code for one in findings if one.status == "FAIL"] == ["transfer-nothing"]
    case = other_case(findings, model=model, data=data, name="moved", budget_s=30, context=context)
    text = case.makers[0]().files["repro.py"].decode()
    assert "[3, 2, 12]" in text
    assert "Conv1D(6, kernel_size=3" in text
    assert "stored" not in text
    assert "tsguard" not in text
    assert "Dense" not in text


class Loud(keras.Model):
    """A model of one's own that begins far too large."""

    def __init__(self):
        super().__init__()
        wide = keras.initializers.RandomNormal(stddev=50.0)
        self.hidden, self.out = layers.Dense(16, "relu", kernel_initializer=wide), layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


@pytest.mark.parametrize("own", [False, True])
def test_a_script_holds_no_more_than_its_lines_read(own):
    keras.utils.set_random_seed(0)
    model = Loud()
    if not own:
        entry = keras.Input((4,))
        model = keras.Model(entry, model.out(model.hidden(entry)))
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model(x)
    context, findings = found(model, x, x[:, :1], "init-scale")
    case = other_case(findings, model=model, data=Data(x, x[:, :1]), name="loud", budget_s=20, context=context)
    text = case.makers[0]().files["repro.py"].decode()
    assert "\ny = " not in text
    assert "model.compile" not in text
    assert ("\nx = " in text) == own, "what is not built yet is called first"
    assert ("tries a mended model, or (model, x, y)." in text) == own


def test_what_was_not_built_yet_begins_the_same_at_each_call():
    model = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    model.compile("adam", "mse")
    data = Data(np.ones((8, 3), "float32"), np.ones((8, 1), "float32"))
    one, two = (find._opened(model, data).get_weights() for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
