"""Random planted faults, wholly reduced: no step, row, timestep, layer or term of the loss can be left out."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers, ops

import tsguard
from fixtures.operations.faults import Own
from tsguard.dataset import leaves
from tsguard.repro import emit
from tsguard.repro.case import Batch, from_batch, from_outcome
from tsguard.repro.graphs import graph_of, has_graph
from tsguard.repro.passes.narrow import _rebuilt_case
from tsguard.repro.passes.terms import drop_loss_terms
from tsguard.repro.reduce import Reduction, measure

PLANTS = {
    "log": (lambda z: ops.log(z), 0.0),
    "root": (lambda z: ops.sqrt(z), -1.0),
    "ratio": (lambda z: z / z, 0.0),
}
"""Operations, and the one value that breaks them where all others are between a half and one and a half."""


@st.composite
def faults(draw):
    """A chain of layers with one operation in it, and one or two elements of the batch that break it."""
    shape = rows, steps, features = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    places = st.tuples(st.integers(0, rows - 1), st.integers(0, steps - 1), st.integers(0, features - 1))
    return {
        "plant": draw(st.sampled_from(sorted(PLANTS))),
        "shape": shape,
        "before": draw(st.integers(0, 2)),
        "widths": draw(st.lists(st.integers(1, 4), max_size=2)),
        "places": draw(st.lists(places, min_size=1, max_size=2)),
        "seed": draw(st.integers(0, 99)),
    }


def planted(fault):
    """The case of a fault that was drawn."""
    keras.utils.set_random_seed(fault["seed"])
    operation, value = PLANTS[fault["plant"]]
    inputs = h = keras.Input(fault["shape"][1:])
    for _ in range(fault["before"]):
        h = layers.Identity()(h)
    h = Own(operation, name="own")(h)
    for width in fault["widths"]:
        h = layers.Dense(width)(h)
    model = keras.Model(inputs, h)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).uniform(0.5, 1.5, fault["shape"]).astype("float32")
    for place in fault["places"]:
        x[place] = value
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    return from_batch(model, Batch(x, y), weights=tuple(model.get_weights()), name="planted")


def smaller_by_one(case):
    """Every case that has one row, timestep or layer less."""
    for axis, size in enumerate(next(leaves(case.batch.x)).shape[:2]):
        for index in range(size if size > 1 else 0):
            cut = case.batch.map(lambda leaf, axis=axis, index=index: np.delete(leaf, index, axis))
            yield case.with_(batch=cut)
    if has_graph(case.model):
        inner = [one for one in graph_of(case.model).layers if not isinstance(one, keras.layers.InputLayer)]
        for layer in inner if len(inner) > 1 else []:
            if (without := _rebuilt_case(case, {}, without=layer)) is not None:
                yield without


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(faults())
def test_a_reduced_case_is_one_minimal_in_rows_timesteps_and_layers(fault):
    case = planted(fault)
    assert case is not None
    reduction = Reduction(case, budget_s=600)
    small = reduction.run()
    assert not reduction.exhausted
    assert small.fails()
    assert measure(small) <= measure(case)
    assert not any(one.fails() for one in smaller_by_one(small))


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(faults())
def test_two_reductions_give_the_same_case(fault):
    case = planted(fault)
    one, two = (Reduction(case, budget_s=600).run() for _ in range(2))
    assert measure(one) == measure(two)
    for a, b in zip(leaves([one.batch.x, one.batch.y]), leaves([two.batch.x, two.batch.y]), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


class Grows(layers.Layer):
    """Adds a weight that must stay below a limit; what comes out does not say how near it is."""

    def __init__(self, limit, **kwargs):
        super().__init__(**kwargs)
        self.limit = limit

    def build(self, shape):
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")

    def call(self, z):
        return z * 0.0 + self.weight + 0.0 * ops.log(self.limit - self.weight)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(limit=st.integers(1, 5), rows=st.integers(1, 3), steps=st.integers(1, 2))
def test_a_reduced_case_begins_at_the_last_state_that_fails_in_one_step(limit, rows, steps):
    inputs = keras.Input((steps,))
    model = keras.Model(inputs, Grows(float(limit))(inputs))  # an integer would be narrowed
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: -ops.mean(p, axis=-1))  # the weight grows by one a step
    x = np.ones((rows * 10, steps), "float32")
    guard = tsguard.Guard(out=None, repro=False, diagnose=False)
    model.fit(x, x, batch_size=rows, shuffle=False, verbose=0, callbacks=[guard])
    case = from_outcome(guard.report.source, name="grown")
    assert guard.report.source.origin.step == limit
    reduction = Reduction(case, budget_s=600)
    small = reduction.run()
    assert not reduction.exhausted
    assert small.fails()
    assert [float(weight) for weight in small.weights] == [limit]
    assert not small.with_(weights=tuple(weight - 1 for weight in small.weights)).fails()
    assert small.batch.size == 1 or not any(one.fails() for one in smaller_by_one(small))


class Terms(keras.Model):
    """A loss of several terms, of which some are not finite."""

    def __init__(self, count, sick):
        super().__init__()
        self.head, self.count, self.sick = layers.Dense(1), count, sick

    def call(self, x):
        return self.head(x)

    def loss_terms(self, x, y, y_pred, sample_weight=None):
        error = ops.mean(ops.square(y_pred))
        return {f"term_{i}": ops.log(0.0 * error) if i in self.sick else error for i in range(self.count)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return sum(self.loss_terms(x, y, y_pred, sample_weight).values())


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(2, 4).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), min_size=1)))
)
def test_of_the_terms_of_a_loss_one_is_left(drawn):
    count, sick = drawn
    model = Terms(count, sorted(sick))
    model.compile("sgd")
    x = np.ones((2, 2), "float32")
    model(x)
    case = from_batch(model, Batch(x), weights=tuple(model.get_weights()), name="terms")
    small = drop_loss_terms(case, lambda one: one.fails())
    assert small.fails()
    assert len(small.terms) == 1
    assert int(small.terms[0].removeprefix("term_")) in sick
    text = emit.emit(small).files["repro.py"].decode()
    assert f'loss_terms(x, None, answers, None)["{small.terms[0]}"]' in text
