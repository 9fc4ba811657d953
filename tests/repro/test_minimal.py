"""Random planted faults, wholly reduced: nothing that is left can be left out."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

from fixtures.operations.faults import Own
from tsguard.dataset import leaves
from tsguard.repro.case import Batch, from_batch
from tsguard.repro.graphs import graph_of, has_graph
from tsguard.repro.passes.narrow import _rebuilt_case
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
