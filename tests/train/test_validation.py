"""Validation sets by name are cut as declared, judged after every epoch, and stand where everything else is found."""

import keras
import numpy as np
import pytest

import tsguard
from tsguard.checks.data_parts import another_amount
from tsguard.checks.registry import Context
from tsguard.dataset import Data
from tsguard.errors import ConfigError
from tsguard.settings import TrainSettings
from tsguard.train.validation import ValidationSets, declared

N = 60
X = np.arange(N * 2, dtype="float32").reshape(N, 2) / N
Y = X[:, :1] * 2 - 1
ROWS = {"time": np.arange(N)[::-1].astype("datetime64[D]"), "house": np.arange(N) % 6}


def cut(**wanted):
    return declared(Data(X, Y, rows=ROWS), TrainSettings(validation=wanted), seed=0)


def rows_of(x):
    return (x[:, 0] * N / 2).round().astype(int).tolist()


def test_the_latest_share_by_a_column_is_another_period():
    data = cut(late={"by": "time", "last": 0.2, "purge": 3})
    assert sorted(rows_of(data.validation_sets["late"][0])) == list(range(12))  # time runs backwards here
    assert sorted(rows_of(data.x)) == list(range(15, N))
    assert data.validation[0] is data.validation_sets["late"][0]
    assert len(data.rows["house"]) == len(data.x) == len(data.y)


def test_entities_and_values_leave_training_whole():
    data = cut(new={"by": "house", "entities": 0.2}, five={"by": "house", "values": [5]})
    house = {name: {row % 6 for row in rows_of(pair[0])} for name, pair in data.validation_sets.items()}
    assert house["five"] in ({5}, set())
    trained = {row % 6 for row in rows_of(data.x)}
    assert not trained & (house["new"] | house["five"])
    assert trained | house["new"] | house["five"] == set(range(6))


def test_what_the_data_brings_along_stays():
    own = (X[:5], Y[:5])
    data = declared(
        Data(X, Y, validation=own, validation_sets={"other": own}),
        TrainSettings(validation={"tail": {"last": 0.1}}),
    )
    assert set(data.validation_sets) == {"other", "tail"}
    assert np.array_equal(data.validation[0], X[:5])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"a-b": {"last": 0.1}}, "letters, digits"),
        ({"a": {}}, "one of last, entities, values"),
        ({"a": {"by": "flat", "last": 0.1}}, "time, house"),
        ({"a": {"values": [1]}}, "Name a column"),
        ({"a": {"by": "house", "values": [99]}}, "0 rows for it"),
    ],
)
def test_what_cannot_be_cut_is_a_mistake_in_words(wanted, words):
    with pytest.raises(ConfigError, match=words):
        cut(**wanted)


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    return model


def counted(calls, plain=ValidationSets._evaluated):
    def call(self, pair):
        calls.append(pair)
        return plain(self, pair)

    return call


@pytest.mark.parametrize("ema", [None, 0.9])
def test_every_set_is_judged_as_keras_judges_and_found_by_stop_gate_and_report(tmp_path, monkeypatch, ema):
    train = {
        "validation": {"late": {"by": "time", "last": 0.2}},
        "stop": {"monitor": "val_late_loss + 0*val_other_mae", "patience": 9, "restore": False},
        "validation_freq": 2,
        **({"ema": ema} if ema else {}),
    }
    other = (X[:7] + 1, Y[:7])
    model, evaluated = build(), []
    monkeypatch.setattr(ValidationSets, "_evaluated", counted(evaluated))
    report = tsguard.fit(
        model, X, Y, train=train, rows=ROWS, validation_sets={"other": other}, gates={"other/rmse": "< 100"},
        epochs=4, verbose=0, out=tmp_path, preflight=False, diagnose=False,
    )  # fmt: skip
    series = report.series
    assert len(evaluated) == 2  # `late` was evaluated by fit itself
    assert series["epoch/val_other_loss"].x == (1, 3)
    assert list(series["epoch/val_late_loss"]) == list(series["epoch/val_loss"])
    # the weights at the end are those of the last epoch, averaged where averages are kept
    at_end = model.evaluate(*other, verbose=0, return_dict=True)
    assert series["epoch/val_other_mae"][-1] == pytest.approx(at_end["mae"], rel=1e-6)
    assert report.verdict.status == "PASS", report.verdict.reasons


def test_a_few_batches_of_everything_are_taken_where_only_a_few_are_wanted():
    own = (X[:30], Y[:30])
    data = declared(
        Data(X, Y, validation=own, validation_sets={"a": own}), TrainSettings(limit_batches=2, batch_size=4)
    )
    assert (len(data.x), len(data.y), len(data.validation[0]), len(data.validation_sets["a"][0])) == (8, 8, 8, 8)


def straight():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def r2_of(model, x, y):
    return 1 - float(((model.predict(x, verbose=0) - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


BARE = {"epochs": 1, "verbose": 0, "preflight": False, "diagnose": False}


def test_what_keras_splits_off_is_what_the_run_is_judged_on(tmp_path):
    model = straight()
    report = tsguard.fit(model, X, Y, validation_split=0.25, out=tmp_path, **BARE)
    assert report.metrics["r2"] == report.metrics["val/r2"] == pytest.approx(r2_of(model, X[45:], Y[45:]), rel=1e-4)
    assert report.metrics["train/r2"] == pytest.approx(r2_of(model, X[:45], Y[:45]), rel=1e-4)


def test_a_loader_that_validates_is_what_the_run_is_judged_on(tmp_path):
    torch = pytest.importorskip("torch")
    held = torch.utils.data.TensorDataset(torch.tensor(X[45:]), torch.tensor(Y[45:]))
    model, loader = straight(), torch.utils.data.DataLoader(held, batch_size=4)
    report = tsguard.fit(model, X[:45], Y[:45], validation_data=loader, out=tmp_path, **BARE)
    assert report.metrics["val/r2"] == pytest.approx(r2_of(model, X[45:], Y[45:]), rel=1e-4)


@pytest.mark.parametrize(("validation", "batches"), [(None, 12), ((X[:5], Y[:5]), 15)])
def test_a_declared_number_of_batches_counts_what_is_trained_on(validation, batches):
    given = {"validation_split": 0.2, "batch_size": 4}
    for declared_as, status in ((batches, set()), (batches + 1, {"FAIL"})):
        context = Context(
            data=Data(X, Y, validation=validation), declared={"batches_per_epoch": declared_as}, facts={"fit": given}
        )
        assert {finding.status for finding in another_amount(context)} == status


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_composite_may_read_what_nobody_compiled(tmp_path, ema):
    train = {
        "stop": {"monitor": "val_loss - 2*r2 + 0*val_std_ratio", "patience": 9, "restore": False},
        "validation_freq": 2,
        "checkpoint": {"monitor": "r2", "mode": "max"},
        **({"ema": ema} if ema else {}),
    }
    model = straight()
    report = tsguard.fit(model, X, Y, validation_split=0.25, train=train, out=tmp_path, **{**BARE, "epochs": 4})
    told = report.series["epoch/r2"]
    assert told.x == (0, 1, 2, 3)
    assert report.series["epoch/val_std_ratio"].x == (1, 3)
    # the weights at the end are those of the last epoch, averaged where averages are kept
    assert told[-1] == pytest.approx(r2_of(model, X[45:], Y[45:]), rel=1e-4)


def test_measuring_for_a_composite_leaves_the_run_bit_for_bit(tmp_path):
    def trained(monitor):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
        model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        stop = {"monitor": monitor, "patience": 9, "restore": False}
        tsguard.fit(model, X, Y, validation_split=0.25, train={"stop": stop}, out=tmp_path, **{**BARE, "epochs": 3})
        return model.get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(trained("val_loss"), trained("val_loss - r2"), strict=True))


def test_a_large_validation_part_is_measured_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2100, 2)).astype("float32")
    y = (x[:, :1] * rng.exponential(size=(2100, 1))).astype("float32")
    model = straight()
    report = tsguard.fit(model, x[:64], y[:64], validation_data=(x[64:], y[64:]), out=tmp_path, **BARE)
    assert report.metrics["r2"] == pytest.approx(r2_of(model, x[64:], y[64:]), rel=1e-4)
