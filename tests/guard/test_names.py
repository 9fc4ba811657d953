"""Features and samples are named as the user names them, wherever the names are known."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

from tsguard.errors import ConfigError
from tsguard.guard.callback import Guard

ROW = 13


def log_model(inputs, **outputs):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    many = inputs if isinstance(inputs, dict) else {"only": inputs}
    hidden = [layers.Lambda(lambda z: ops.log(z), name=f"log_{key}")(value) for key, value in many.items()]
    hidden = [layers.Flatten()(value) for value in hidden]
    joined = layers.Concatenate()(hidden) if len(hidden) > 1 else hidden[0]
    model = keras.Model(inputs, layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    return model


def where(model, x, y, **options):
    guard = Guard(out=None, **options)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[guard])
    return guard.report.findings[0]


def positive(*shape):
    return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype("float32")


def test_a_frame_gives_column_row_and_id():
    frame = pd.DataFrame(positive(40, 3), columns=["open", "close", "volume"], index=[f"s{k:02d}" for k in range(40)])
    frame.iloc[ROW, 2] = 0.0
    finding = where(log_model(keras.Input((3,))), frame, positive(40, 1))
    assert (finding.where["feature"], finding.where["row"], finding.where["id"]) == ("volume", ROW, "s13")
    assert "feature volume, row 13 of the data set (id s13)" in finding.message


def test_a_frame_with_a_plain_index_has_rows_and_no_ids():
    frame = pd.DataFrame(positive(40, 3), columns=["open", "close", "volume"])
    frame.iloc[ROW, 0] = np.nan
    finding = where(log_model(keras.Input((3,))), frame, positive(40, 1))
    assert finding.code == "data-nonfinite"
    assert (finding.where["feature"], finding.where["row"]) == ("open", ROW)
    assert "id" not in finding.where


def test_inputs_of_one_column_are_named_by_their_key():
    x = {"age": positive(40, 1), "income": positive(40, 1)}
    x["income"][ROW] = 0.0
    finding = where(log_model({key: keras.Input((1,), name=key) for key in x}), x, positive(40, 1))
    assert (finding.where["feature"], finding.where["input"], finding.where["row"]) == ("income", "income", ROW)


def test_an_input_of_several_is_named_with_its_feature():
    x = {"past": positive(40, 5, 3), "static": positive(40, 2)}
    x["past"][ROW, 4, 1] = 0.0
    model = log_model({"past": keras.Input((5, 3), name="past"), "static": keras.Input((2,), name="static")})
    finding = where(model, x, positive(40, 1), names={"past": ["a", "b", "c"]}, ids=[100 + k for k in range(40)])
    place = finding.where
    assert (place["input"], place["feature"], place["timestep"], place["id"]) == ("past", "b", 4, 113)


def test_given_names_serve_arrays():
    x = positive(40, 5, 3)
    x[ROW, 2, 2] = 0.0
    finding = where(log_model(keras.Input((5, 3))), x, positive(40, 1), names=["open", "close", "volume"])
    assert (finding.where["feature"], finding.where["timestep"]) == ("volume", 2)


def test_names_that_are_no_list_are_refused():
    with pytest.raises(ConfigError, match=r"Guard\(names=…\)"):
        Guard(names="open")
