"""Every script fails by itself, in a process that knows nothing, and passes once the model is mended."""

import statistics

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.repro.programs import healthy_copy, planted, run, small
from tsguard.repro import emit
from tsguard.repro.case import Batch, Case, Fingerprint, from_batch
from tsguard.repro.code import graph
from tsguard.repro.code.lines import Lines
from tsguard.repro.code.objects import construction
from tsguard.repro.script import folded, one_line, returned

SCRIPTS = {
    "sequential/log_negative": ("ops.log(z)", "ops.log(ops.maximum(z, 1.0) + 0.0 * z)"),
    "functional/log_zero": ("keras.ops.log", "keras.ops.tanh"),
    "subclassed/where_log": ("ops.log(z)", "ops.log(ops.where(z > 0, z, 1.0))"),
    "second_output/log_negative": ("ops.log(z)", "ops.log(ops.maximum(z, 1.0))"),
    "own_train_step/log_negative": ("ops.log(z)", "ops.log(ops.maximum(z, 1.0))"),
    "named_term/log_negative": ("ops.log(z)", "ops.log(ops.maximum(z, 1.0))"),
    "mixed_float16/square": ("keras.ops.square", "keras.ops.tanh"),
    "cell/sqrt_negative": ("keras.ops.sqrt", "keras.ops.tanh"),
    "loss/empty_selection": ("ops.mean(error[chosen])", "ops.sum(error[chosen]) + 0.0 * ops.mean(p)"),
}
"""Planted faults, and what their author would change in the script's own model."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_fails_in_a_fresh_process_and_passes_with_the_mended_model(name, tmp_path):
    script = small(name).save(tmp_path, confirm=False)
    code, said = run(script)
    assert code == 1, said
    assert "first value that is not finite" in said
    used = healthy_copy(script, tmp_path, SCRIPTS[name])
    code, said = run(script, "--use", used, path=tmp_path)
    assert code == 0, said


def test_scripts_are_short_enough_to_be_read():
    lines = [
        emit.emit(small(name, 20)).lines for name in ("functional/log_zero", "mixed_float16/square", "data/nan_in_x")
    ]
    assert statistics.median(lines) <= 25, lines


def test_nan_in_data_is_written_as_code():
    text = emit.emit(small("data/nan_in_x")).files["repro.py"].decode()
    assert 'float("nan")' in text
    assert " nan" not in text


def test_names_that_would_break_a_script_are_written_safely():
    inputs = keras.Input((3,), name='a"b')
    h = layers.Lambda(lambda z: ops.log(z), name='quo"te\\')(inputs)
    model = keras.Model({'a"b': inputs}, h)
    model.compile("sgd", "mse")
    case = Case(model, Batch({'a"b': np.zeros((1, 3), "float32")}, np.zeros((1, 3), "float32")),
                Fingerprint("nonfinite-forward", "forward", "log", "Lambda"))  # fmt: skip
    text = emit.emit(case).files["repro.py"].decode()
    compile(text, "repro.py", "exec")


def test_what_closes_over_an_object_is_refused_in_words(tmp_path):
    scaler = object()

    def loss(y, p):
        return ops.mean(ops.log(y - p * 0) + 0 * id(scaler))

    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", loss)
    case = from_batch(model, Batch(np.ones((2, 2), "float32"), np.zeros((2, 1), "float32")), weights=None, name="c")
    written = case.save(tmp_path)
    assert written.name == "README.md"
    said = written.read_text()
    assert "There is no script" in said
    assert "'scaler'" in said


def test_a_model_that_cannot_be_written_is_imported_by_its_path():
    scaler = object()

    def loss(y, p):
        return ops.mean(ops.log(y - p * 0) + 0 * id(scaler))

    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", loss)
    case = from_batch(model, Batch(np.ones((2, 2), "float32"), np.zeros((2, 1), "float32")), weights=None, name="c")
    text = emit.emit(case.with_(recipe=("some.place:build", {"width": 3}))).files["repro.py"].decode()
    assert "from some.place import build as make" in text
    assert "make(width=3)" in text


def test_the_model_is_left_bit_equal():
    case = planted("functional/log_zero")
    before = [np.array(weight) for weight in case.model.get_weights()]
    from tsguard.repro.find import reduced

    reduced(case, budget_s=30)
    assert all(np.array_equal(a, b) for a, b in zip(before, case.model.get_weights(), strict=True))
    assert type(case.model.optimizer).__name__ == "SGD"


def test_a_healthy_neighbour_is_told():
    case = small("mixed_float16/square")
    assert "heals it" in case.nearest_healthy
    assert "in place of" in emit.readme(case, emit.emit(case)).decode()


def built_again(model):
    """What the code of a model makes."""
    lines = Lines()
    graph.model(model, lines)
    space = {"keras": keras}
    exec("\n".join(lines.body), space)
    return space["model"]


def test_a_layer_that_is_called_twice_is_made_once():
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    shared = layers.Dense(4)
    model = keras.Model([one, two], layers.Add()([shared(one), shared(two)]))
    again = built_again(model)
    assert len(again.weights) == len(model.weights) == 2
    again.set_weights(model.get_weights())
    x = [np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")]
    assert np.array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


def test_an_index_that_came_through_a_configuration_is_written():
    entry = keras.Input((3,))
    model = keras.Model(entry, entry[..., None] + entry[:, None, :])
    fresh = keras.Model.from_config(model.get_config())
    x = np.arange(6.0, dtype="float32").reshape(2, 3)
    assert np.array_equal(model.predict(x, verbose=0), built_again(fresh).predict(x, verbose=0))


class Filled(layers.Layer):
    """An argument that has to be given, and may be None."""

    def __init__(self, fill, **kwargs):
        super().__init__(**kwargs)
        self.fill = fill

    def call(self, x):
        return x


def test_an_argument_without_a_default_is_written_though_it_is_none():
    assert construction(Filled(None), Lines()) == "Filled(None)"


def test_long_lines_are_broken_within_brackets_and_never_within_words():
    row = ", ".join(["1.25"] * 40)
    assert folded(f"x = np.array([{row}])")[0].endswith(",")
    assert all(len(part) <= 120 for part in folded(f"x = np.array([{row}])"))
    one = f"x = {{'{'a long name ' * 12}': 1.0}}"
    assert folded(one) == [one]
    assert eval("\n".join(returned(f"[{row}], [{row}]")).removeprefix("return ")) == ([1.25] * 40, [1.25] * 40)


def test_words_are_cut_between_words():
    assert one_line("one two three", 9) == "one …"
    assert one_line("one two", 9) == "one two"


def test_settings_that_are_usual_are_not_written():
    layer = layers.Dense(
        3,
        kernel_initializer=keras.initializers.RandomNormal(stddev=1.0),
        bias_initializer=keras.initializers.Ones(),
        kernel_regularizer=keras.regularizers.L2(0.5),
    )
    assert construction(layer, Lines()) == (
        "keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0), "
        'bias_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5))'
    )
    assert "initializers.Constant()" in construction(
        layers.Dense(3, kernel_initializer=keras.initializers.Constant()), Lines()
    ), "which has no name that says it"


def test_layers_that_are_written_alike_are_counted():
    built = keras.Sequential(
        [keras.Input((2,)), *(layers.Dense(2, "tanh") for _ in range(9)), layers.Dense(1), layers.Dense(1)]
    )
    graph.model(built, lines := Lines())
    assert (
        '*(keras.layers.Dense(2, activation="tanh") for _ in range(9)), keras.layers.Dense(1), keras' in lines.body[0]
    )
    space = {"keras": keras}
    exec("\n".join(lines.body), space)
    assert [weight.shape for weight in space["model"].weights] == [weight.shape for weight in built.weights]


def test_a_shape_of_one_number_stays_a_tuple():
    assert construction(layers.Reshape((10,)), Lines()) == "keras.layers.Reshape((10,))"
    assert construction(layers.Conv1D(2, (3,)), Lines()) == "keras.layers.Conv1D(2, kernel_size=3)"


class Scaled(keras.Sequential):
    """A step of one's own that returns the loss as it was before it was scaled."""

    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        (loss * float("inf")).backward()
        return {"loss": loss.detach()}


@pytest.mark.slow
def test_what_the_logs_of_an_own_step_do_not_tell_its_gradients_do(tmp_path):
    model = Scaled([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    case = from_batch(model, Batch(np.ones((4, 2), "float32"), np.ones((4, 1), "float32")), weights=None, name="own")
    code, said = run(case.save(tmp_path, confirm=False))
    assert code == 1, said
    assert "first value that is not finite" in said


def weighed(kinds):
    def loss(y, p):
        return ops.mean(kinds * ops.square(y - p))

    return loss


def test_a_tensor_that_a_loss_closes_over_is_written():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.compile("sgd", weighed(ops.convert_to_tensor([0.5, float("nan")])))
    case = from_batch(model, Batch(np.ones((1, 2), "float32"), np.zeros((1, 2), "float32")), weights=None, name="a")
    assert 'kinds = keras.ops.array([0.5, float("nan")])' in emit.emit(case).files["repro.py"].decode()
