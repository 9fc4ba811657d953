"""Where accumulated gradients are another thing than the large batch, the report says how much."""

import keras
import numpy as np

from tsguard.checks.accumulation import CODE
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 10, 3)).astype("float32")
LENGTHS = RNG.integers(1, 11, 64)


def asked(x, *, steps=4, layers=()):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((10, 3)), keras.layers.Masking(0.0), *layers, keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps), "mse")
    (one,) = (check for check in all_checks() if check.codes == (CODE,))
    context = Context(
        subject=Subject.from_model(model), data=Data(x, x[:, :, :1] + 1), facts={"fit": {"batch_size": 8}}
    )
    (found,) = run_checks(context, [one])
    assert model.layers[-2].rate == 0.5
    return found


def padded():
    x = X.copy()
    x[np.arange(10)[None] >= LENGTHS[:, None]] = 0
    return x


def test_equal_weights_pass_with_their_figure():
    found = asked(X)
    assert found.status == "PASS"
    assert found.evidence[0].value < 1e-5


def test_a_masked_mean_is_measured_on_the_models_own_batches():
    found = asked(padded())
    assert (found.status, found.role) == ("WARN", "note")
    assert 1e-4 < found.evidence[0].value < 1
    assert "differs from that of the one large batch by" in found.message


def test_batch_statistics_are_named():
    assert "batch statistics" in asked(X, layers=[keras.layers.BatchNormalization()]).message


def test_dropout_inside_a_recurrent_layer_is_not_taken_for_a_difference():
    found = asked(X, layers=[keras.layers.GRU(4, dropout=0.3, recurrent_dropout=0.2, return_sequences=True)])
    assert found.status == "PASS", found.message


class Draws(keras.layers.Layer):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


def test_what_draws_by_itself_is_not_asked():
    found = asked(X, layers=[Draws()])
    assert found.status == "NOT_RUN"
    assert "draws at random" in found.message


def test_without_accumulation_there_is_nothing_to_say():
    assert asked(padded(), steps=None).status == "PASS"
