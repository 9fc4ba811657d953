"""New data reaches a trained model as training did, and predictions come back in the units of the targets."""

import sys

import keras
import numpy as np
import pandas as pd
import pytest

from tsguard import commands
from tsguard.data.scalers import fit_scaler
from tsguard.dataset import Data
from tsguard.errors import ConfigError
from tsguard.padding import Padding
from tsguard.store import RunFolder
from tsguard.train.inputs import Known, in_units, inputs_from, keep, kept

MODULE = """
import os
import keras, numpy as np
from tsguard.data.scalers import fit_scaler
def table():
    t = np.arange(80)
    return np.stack([1000 + 50 * np.sin(t / 3), 0.01 * np.cos(t / 5)], 1).astype("float32")
def build():
    values, mask = keras.Input((8, 2), name="values"), keras.Input((8,), dtype="bool", name="mask")
    h = keras.layers.Dense(4)(values) * keras.ops.cast(mask, "float32")[..., None]
    model = keras.Model({"values": values, "mask": mask}, keras.layers.Dense(1)(keras.layers.Flatten()(h)))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model
def data():
    raw = table()
    scaler = fit_scaler(raw, rows=np.arange(80), names=("load", "flow"))
    target = fit_scaler(raw[:, :1], rows=np.arange(80), names=("load",))
    x = np.stack([scaler.transform(raw)[i:i + 8] for i in range(72)])
    y = target.transform(raw[8:80, :1])
    x = {"values": x, "mask": np.ones((72, 8), bool)}
    return dict(x=x, y=y, names=["load", "flow"], scalers={"x": scaler, "y": target})
def inputs(frame):
    return data()["x"]
"""
RUN = """
name: units
model: {use: "MODULE:build"}
data: {use: "MODULE:data", inputs: "MODULE:inputs"}
padding: {inputs: {values: 1}, mask: mask, outputs: null}
gates: report
check: {budget_s: 0.01}
guard: {diagnose: false, repro: false}
train: {epochs: 30, batch_size: 16}
"""


def test_a_table_in_its_own_units_comes_back_as_predictions_in_theirs(tmp_path, monkeypatch):
    module = f"units_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "run.yaml").write_text(RUN.replace("MODULE", module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    report = commands.train(tmp_path / "run.yaml", progress=lambda name: None)
    assert [f.where["config_key"] for f in report.findings if f.code == "config-unused-key"] == []
    raw = sys.modules[module].table()
    pd.DataFrame(raw, columns=["load", "flow"]).assign(note="x").to_csv(tmp_path / "new.csv", index=False)
    config = report.run.path / "config.yaml"
    by_function = predicted(report)
    config.write_text(config.read_text().replace(f"inputs: {module}:inputs", "inputs: null"))
    by_columns = predicted(report)
    assert by_columns.shape == (73, 1)
    assert np.allclose(by_columns[:72], by_function, rtol=1e-5)
    assert np.abs(by_columns[:72] - raw[8:, :1]).mean() < 40  # loads lie between 950 and 1050
    np.savez(tmp_path / "new.npz", values=np.stack([raw[i : i + 8] for i in range(73)]))
    assert np.allclose(predicted(report, "new.npz"), by_columns, rtol=1e-5)
    sys.modules.pop(module)


def predicted(report, name="new.csv"):
    made = commands.predict(report.run.path, name)
    with np.load(made["file"]) as file:
        return next(iter(file.values()))


def flat():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def test_rows_of_the_named_columns_in_their_order(tmp_path):
    pd.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0], "c": [5.0, 6.0]}).to_parquet(tmp_path / "t.parquet")
    found = inputs_from(str(tmp_path / "t.parquet"), flat(), Known(names=("a", "b")))
    assert found.tolist() == [[3, 1], [4, 2]]


def test_a_table_that_does_not_fit_is_told_with_the_models_inputs(tmp_path):
    pd.DataFrame({"a": [1.0]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ConfigError, match="a table without b"):
        inputs_from(str(tmp_path / "t.csv"), flat(), Known(names=("a", "b")))


def test_what_is_kept_reads_back_and_a_foreign_scaler_is_refused(tmp_path):
    folder = RunFolder.create(tmp_path, "r")
    x = np.random.default_rng(0).normal(5, 3, size=(30, 2))
    scaler = fit_scaler(x, rows=np.arange(30), names=("a", "b"))
    keep(folder, Data(x, names=("a", "b"), scalers={"x": scaler}))
    known = kept(folder)
    assert known.names == ("a", "b")
    assert np.array_equal(known.scalers["x"].transform(x), scaler.transform(x))
    with pytest.raises(ConfigError, match="fit_scaler"):
        keep(folder, Data(x, scalers={"x": object()}))


def test_a_horizon_of_one_target_is_inverted_along_time():
    scaler = fit_scaler(np.arange(20.0)[:, None], rows=np.arange(20), names=("load",))
    y = np.arange(6.0).reshape(2, 3)
    found = in_units({"p": scaler.transform(y[..., None])[..., 0]}, Known(scalers={"y": scaler}))
    assert np.allclose(found["p"], y)


def test_masks_of_time_and_of_features_are_filled_where_the_model_takes_them(tmp_path):
    inputs = {
        "values": keras.Input((5, 3), name="values"),
        "mask": keras.Input((5,), dtype="bool", name="mask"),
        "features": keras.Input((3,), dtype="bool", name="features"),
    }
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["values"]))
    np.save(tmp_path / "x.npy", np.zeros((2, 5, 3), "float32"))
    padding = Padding(inputs={"values": 1}, mask="mask", features=(2, "features"))
    found = inputs_from(str(tmp_path / "x.npy"), model, Known(padding=padding))
    assert {name: (value.shape, str(value.dtype)) for name, value in found.items()} == {
        "values": ((2, 5, 3), "float32"),
        "mask": ((2, 5), "bool"),
        "features": ((2, 3), "bool"),
    }


def test_arrays_that_the_model_cannot_take_are_told_with_its_inputs(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(2)])
    np.save(tmp_path / "good.npy", np.zeros((2, 7, 3), "float32"))
    assert inputs_from(str(tmp_path / "good.npy"), model, Known()).shape == (2, 7, 3)
    for number, shape in enumerate([(2, 7, 5), (7, 3), (2, 7, 3, 1)]):
        np.save(tmp_path / f"{number}.npy", np.zeros(shape, "float32"))
        with pytest.raises(ConfigError, match=r"\(None, None, 3\)"):
            inputs_from(str(tmp_path / f"{number}.npy"), model, Known())
