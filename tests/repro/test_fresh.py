"""Scripts of every form fail in a process that knows nothing: dict inputs, masks, several outputs, hidden values."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.repro.programs import run, small
from tsguard.repro import emit
from tsguard.repro.case import Batch, from_batch


def case_of(model, x, y, **given):
    model(keras.tree.map_structure(ops.convert_to_tensor, x))
    found = from_batch(model, Batch(x, y), weights=tuple(model.get_weights()), name="case", **given)
    assert found is not None
    return found


def dict_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    h = layers.Concatenate()([layers.Dense(2)(a), b])
    model = keras.Model({"a": a, "b": b}, layers.Lambda(lambda z: ops.log(z * 0.0), name="sick")(h))
    model.compile("sgd", "mse")
    x = {"a": np.ones((2, 3), "float32"), "b": np.ones((2, 2), "float32")}
    return case_of(model, x, np.ones((2, 4), "float32"))


def masked():
    tokens = keras.Input((4,), dtype="int32")
    h = layers.Embedding(5, 3, mask_zero=True)(tokens)
    h = layers.LSTM(3, return_sequences=True)(h)
    model = keras.Model(tokens, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
    model.compile("sgd", "mse")
    return case_of(model, np.array([[1, 2, 0, 0], [0, 0, 0, 0]], "int32"), np.ones((2, 1), "float32"))


def several_outputs():
    inputs = keras.Input((3,))
    outputs = {"well": layers.Dense(1, name="well")(inputs), "sick": layers.Dense(1, name="sick")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"well": "mse", "sick": lambda y, p: ops.mean(ops.log(y) - p, axis=-1)})
    y = {"well": np.ones((2, 1), "float32"), "sick": np.zeros((2, 1), "float32")}
    return case_of(model, np.ones((2, 3), "float32"), y)


WHOLE = {"dict inputs": dict_inputs, "a mask": masked, "several outputs": several_outputs}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_case_that_was_not_reduced_fails_in_a_fresh_process(name, tmp_path):
    case = WHOLE[name]()
    script = case.save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    code, said = run(script)
    assert code == 1, said


@pytest.mark.slow
def test_a_hidden_value_shows_in_a_script_that_watches(tmp_path):
    from tests.repro.programs import planted
    from tsguard.repro.find import reduced

    script = reduced(planted("hidden/nan_to_num", hidden=True), budget_s=60).save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    code, said = run(script)
    assert code == 1, said
    assert "hidden later" in said


@pytest.mark.slow
def test_a_script_that_fails_otherwise_is_not_confirmed(tmp_path):
    from tsguard.repro.script import confirm

    case = small("functional/log_zero")
    script = emit.emit(case)
    assert not confirm(script, tmp_path, fingerprint="nonfinite-forward: phase forward, operation sqrt in a Own")
    assert "operation log" in script.output
    assert confirm(script, tmp_path, fingerprint=case.fingerprint.words())


def test_recorded_state_of_the_optimizer_is_put_in_place():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    x, y = np.ones((2, 2), "float32"), np.ones((2, 1), "float32")
    model.train_on_batch(x, y)
    slots = [np.array(ops.convert_to_numpy(one)) for one in model.optimizer.variables]
    slots[-1] = np.full_like(slots[-1], -1.0)  # a second moment below zero: its root is NaN
    case = from_batch(
        model, Batch(x, y), weights=tuple(model.get_weights()), slots=tuple(slots), name="slots", known_to_fail=True
    )
    assert case.fingerprint.phase == "update"
    text = emit.emit(case).files["repro.py"].decode()
    assert 'variable.assign(stored[f"s{index:03d}"])' in text
    assert "keras.optimizers.Adam(" in text


def test_slices_and_layers_of_several_tensors_are_code(tmp_path):
    inputs = keras.Input((3,))
    steps, left, right = layers.LSTM(2, return_sequences=True, return_state=True)(layers.Reshape((3, 1))(inputs))
    model = keras.Model(inputs, layers.Add()([steps[:, -1], left, right[..., 0:]]))
    model.compile("sgd", lambda y, p: ops.mean(ops.log(y * 0.0) - p, axis=-1))
    script = emit.emit(case_of(model, np.ones((1, 3), "float32"), np.ones((1, 2), "float32")))
    text = script.files["repro.py"].decode()
    assert "[:, -1]" in text
    assert "[..., 0:]" in text
    for name, content in script.files.items():
        (tmp_path / name).write_bytes(content)
    space = {"__file__": str(tmp_path / "repro.py")}
    exec(text.split("\nmodel = (pkgutil")[0], space)
    made = space["build"]()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(made(x)), ops.convert_to_numpy(model(x)))


def test_what_is_no_code_is_made_from_its_configuration():
    inputs = keras.Input((3, 2))
    model = keras.Model(inputs, keras.ops.segment_sum(inputs[0], np.array([0, 0, 1]), num_segments=2))
    model.compile("sgd", lambda y, p: ops.mean(ops.log(y * 0.0) - p, axis=-1))
    script = emit.emit(case_of(model, np.ones((1, 3, 2), "float32"), np.ones((2, 2), "float32")))
    assert not script.refused
    assert "repro.json" in script.files
    assert "deserialize_keras_object" in script.files["repro.py"].decode()
