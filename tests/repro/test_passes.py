"""Each pass takes away what it is for, keeps the failure, and leaves alone what it must."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from fixtures.operations.faults import Own
from tsguard.repro import emit
from tsguard.repro.case import Batch, Case, Fingerprint, from_batch
from tsguard.repro.passes import narrow
from tsguard.repro.passes.isolate import isolate_layer, take_predictions
from tsguard.repro.passes.plain import make_values


def case_of(model, x, y=None, **given):
    model(keras.tree.map_structure(ops.convert_to_tensor, x))
    found = from_batch(model, Batch(x, y), weights=tuple(model.get_weights()), name="case", **given)
    assert found is not None
    return found


def fails(case):
    return case.fails()


def logged(*before, after=()):
    """Layers around one that takes the logarithm of what may be zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3))
    h = inputs
    for layer in before:
        h = layer(h)
    h = Own(lambda z: ops.log(z * 0.0), name="own")(h)
    for layer in after:
        h = layer(h)
    model = keras.Model(inputs, h)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    return case_of(model, x, np.zeros((4, *model.output_shape[1:]), "float32"))


def test_units_heads_and_filters_become_one():
    case = logged(
        layers.Dense(6), layers.Conv1D(7, 2, padding="same"), after=[layers.GlobalAveragePooling1D(), layers.Dense(4)]
    )
    small = narrow.narrow_layers(case, fails)
    kept = {key: value for _, key, value in narrow.sizes(small.model)}
    assert kept["units"] == kept["filters"] == 1
    assert small.fails()
    assert small.batch.y.shape == (4, 1), "targets are cut to what the model answers"


def test_attention_loses_its_heads():
    inputs = keras.Input((4, 6))
    h = layers.MultiHeadAttention(3, 5)(inputs, inputs)
    model = keras.Model(inputs, Own(lambda z: ops.log(z * 0.0), name="own")(h))
    model.compile("sgd", "mse")
    case = case_of(model, np.ones((2, 4, 6), "float32"), np.zeros((2, 4, 6), "float32"))
    small = narrow.narrow_layers(case, fails)
    kept = {key: value for _, key, value in narrow.sizes(small.model)}
    assert kept["num_heads"] == kept["key_dim"] == 1
    assert small.fails()


@pytest.mark.parametrize(("units", "sick"), [(3, 0), (3, 1), (3, 2), (8, 5), (12, 0), (12, 11)])
def test_of_recorded_units_the_one_that_fails_is_left(units, sick):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Own(ops.log, name="own")(layers.Dense(units, use_bias=False)(inputs)))
    model.compile("sgd", "mse")
    kernel = np.ones((2, units), "float32")
    kernel[:, sick] = -3.0
    model.set_weights([kernel])
    case = case_of(model, np.ones((1, 2), "float32"), np.zeros((1, units), "float32"))
    small = narrow.narrow_layers(case, fails)
    assert small.weights[0].tolist() == [[-3.0], [-3.0]]
    assert small.batch.y.shape == (1, 1)


@pytest.mark.parametrize("label", [0, 2, 3, 5])
def test_a_number_that_is_no_class_stays_beyond(label):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4), layers.Dense(3)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = Batch(np.ones((1, 2), "float32"), np.array([label], "int32"))
    case = Case(model, batch, Fingerprint("data-labels", "check", None, None), weights=tuple(model.get_weights()))

    def odd(candidate):
        units = candidate.model.output_shape[-1]
        return units > 1 and (int(candidate.batch.y[0]) >= units) == (label >= 3)

    small = narrow.narrow_layers(case, odd)
    assert small.model.layers[-2].units == 1
    assert small.model.layers[-1].units == 2
    assert small.batch.y.tolist() == [label - 1 if label >= 3 else min(label, 1)]
    assert odd(small)


def test_recorded_weights_are_cut_along_the_features_that_are_kept():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Activation(lambda z: ops.log(z))(layers.Dense(1, use_bias=False)(inputs)))
    model.compile("sgd", "mse")
    model.set_weights([np.array([[1.0], [1.0], [2.0]], "float32")])
    case = case_of(model, np.array([[1.0, 1.0, -4.0]], "float32"), np.zeros((1, 1), "float32"))
    small = narrow.drop_features(case, fails)
    assert small.batch.x.tolist() == [[-4.0]], "only the third feature makes the sum negative"
    assert small.weights[0].tolist() == [[2.0]]


def test_layers_that_are_not_needed_are_bypassed():
    case = logged(layers.Dense(3), layers.LayerNormalization(), after=[layers.Dense(3)])
    small = narrow.bypass_layers(case, fails)
    kinds = [type(one).__name__ for one in small.model.layers]
    assert kinds == ["InputLayer", "Own"]
    assert small.fails()


def two_outputs():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    ha, hb = layers.Dense(4)(a), layers.Dense(4)(b)
    outputs = {"well": layers.Dense(1, name="well")(ha), "sick": layers.Dense(1, name="sick")(hb)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile(
        "sgd",
        {"well": "mse", "sick": lambda y, p: ops.mean(ops.log(y * 0.0) - p)},
        loss_weights={"well": 1.0, "sick": 0.5},
    )
    x = {"a": np.ones((2, 3), "float32"), "b": np.ones((2, 2), "float32")}
    return case_of(model, x, {"well": np.ones((2, 1), "float32"), "sick": np.ones((2, 1), "float32")})


def test_terms_of_the_loss_and_inputs_that_have_no_part_in_it_are_dropped():
    small = narrow.drop_outputs(two_outputs(), fails)
    assert [one.name for one in small.model.layers if one.weights][-1] == "sick"
    assert small.batch.y.shape == (2, 1), "one output is left, by itself"
    assert list(small.batch.x) == ["b"]
    assert small.fails()


def test_a_loss_at_fault_needs_no_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(1)])
    model.compile("sgd", lambda y, p: ops.mean(ops.log(y * 0.0) - p))
    small = take_predictions(case_of(model, np.ones((2, 3), "float32"), np.ones((2, 1), "float32")), fails)
    assert not small.model.weights
    assert small.batch.x.shape == (2, 1)
    assert small.fails()


class Deep(keras.Model):
    """No graph, and its arguments are kept by nobody."""

    def __init__(self, function, width):
        super().__init__()
        self.first, self.own, self.last = layers.Dense(width), Own(function, name="own"), layers.Dense(2)

    def call(self, x):
        return self.last(self.own(self.first(x)))


def deep():
    keras.utils.set_random_seed(0)
    model = Deep(lambda z: ops.log(z * 0.0), 6)
    model.compile("sgd", "mse")
    return case_of(model, np.ones((2, 3), "float32"), np.zeros((2, 2), "float32"))


def test_the_layer_at_fault_is_taken_out_of_a_subclassed_model():
    small = isolate_layer(deep(), fails)
    assert [type(one).__name__ for one in small.model.layers] == ["InputLayer", "Own"]
    assert small.batch.x.shape == (2, 6), "what the layer was given"
    assert small.fails()


def test_the_layers_inside_a_subclassed_model_are_narrowed():
    small = narrow.narrow_layers(deep().with_(weights=None), fails)
    assert small.model.first.units == 1
    assert small.fails()


def test_other_precisions_become_float32_where_it_fails_all_the_same():
    inputs = keras.Input((2,))
    h = layers.Dense(2, dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, Own(lambda z: ops.log(z * 0.0), name="own", dtype="float16")(h))
    model.compile("sgd", "mse")
    small = narrow.simplify_dtype(case_of(model, np.ones((1, 2), "float32"), np.zeros((1, 2), "float32")), fails)
    assert {one.dtype_policy.name for one in small.model.layers[1:]} == {"float32"}


def test_a_fault_of_range_keeps_its_precision():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Own(lambda z: ops.exp(z), name="own", dtype="float16")(inputs))
    model.compile("sgd", "mse")
    case = case_of(model, np.full((1, 2), 20.0, "float32"), np.zeros((1, 2), "float32"))
    assert narrow.simplify_dtype(case, fails) is case


def test_what_need_not_train_is_frozen():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    h = layers.Dense(3, name="before")(inputs)
    h = layers.Lambda(lambda z: ops.sqrt(z * 0.0), name="root")(h)
    model = keras.Model(inputs, layers.Dense(1, name="after")(h))
    model.compile("sgd", "mse")
    case = case_of(model, np.ones((1, 3), "float32"), np.ones((1, 1), "float32"))
    assert case.fingerprint.phase == "backward"
    small = narrow.freeze_layers(case, fails)
    live = [one.name for one in small.model.layers if one.trainable_weights]
    assert live == ["before"], "its gradient passes through the root; that of the layer behind does not"


def test_made_values_take_the_place_of_measured_ones_where_it_still_fails():
    case = logged()
    made = make_values(case, fails)
    assert not np.isin(made.batch.x, case.batch.x).any()
    assert made.fails()


def test_measured_values_stay_where_only_they_fail():
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layers.Lambda(lambda z: ops.log(z - 1.25), name="own")(inputs))
    model.compile("sgd", "mse")
    case = case_of(model, np.array([[1.25]], "float32"), np.zeros((1, 1), "float32"))
    made = make_values(case, lambda one: one.fails() and one.batch.x[0, 0] == 1.25)
    assert made.batch.x.tolist() == [[1.25]]


@pytest.mark.parametrize("make", [deep, two_outputs, logged], ids=["subclassed", "two outputs", "graph"])
def test_a_pass_that_keeps_nothing_changes_nothing(make):
    case = make()
    for one in (narrow.narrow_layers, narrow.bypass_layers, narrow.drop_outputs, isolate_layer, take_predictions):
        assert one(case, lambda candidate: False) is case


def test_a_case_says_what_it_is_without_printing_its_arrays():
    said = repr(deep())
    assert "nonfinite-forward" in said
    assert "(2, 3)" in said
    assert "array(" not in said


def test_arguments_that_nobody_kept_are_written_as_what_they_made():
    text = emit.emit(deep()).files["repro.py"].decode()
    assert "class Deep(Deep):" in text
    assert "self.own = Own(lambda z: ops.log(z * 0.0))" in text
    assert "keras.layers.Dense(6)" in text
