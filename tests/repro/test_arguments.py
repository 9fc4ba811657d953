"""Arguments of a constructor: told, or found again where that makes the same object, or refused in words."""

import keras
import numpy as np
import pytest
from keras import layers

from tsguard.backend import rng_state
from tsguard.repro.arguments import given_to
from tsguard.repro.code.lines import Lines, NotCode
from tsguard.repro.code.objects import construction
from tsguard.repro.graphs import remade


class Net(keras.Model):
    """Keeps neither of its arguments under its name."""

    def __init__(self, width, *, deep=False, least=0):
        super().__init__()
        self.hidden = layers.Dense(width, activation="tanh")
        self.attend = layers.MultiHeadAttention(1, 2)
        self.second = layers.Dense(width) if deep else None
        self.floor = max(2, least)

    def call(self, x):
        h = self.hidden(x)
        h = h if self.second is None else self.second(h)
        return self.attend(h, h)


class Scaled(keras.Model):
    """Holds an array that no plain value makes."""

    def __init__(self, scale):
        super().__init__()
        self.kept = np.asarray(scale)

    def call(self, x):
        return x


class Doubled(keras.Model):
    """An attribute of an argument's name that holds something else."""

    def __init__(self, units, rate):
        super().__init__()
        self.units = 2 * units
        self.drop = layers.Dropout(rate)

    def call(self, x):
        return self.drop(x)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(("width", "deep", "least"), [(3, False, 0), (5, True, 0), (4, False, 7)])
def test_what_makes_the_same_object_is_found(width, deep, least, built):
    net = Net(width, deep=deep, least=least)
    if built:
        net(np.zeros((1, 2, 3), "float32"))
    told = given_to(net)
    again = Net(told["width"], deep=told["deep"], least=told["least"])
    assert (again.hidden.units, again.second is not None, again.floor) == (width, deep, max(2, least))


def test_what_no_plain_value_makes_is_refused():
    with pytest.raises(NotCode, match="'scale'"):
        given_to(Scaled([1.0, 2.0]))


def test_an_attribute_that_is_no_argument_is_not_believed():
    with pytest.raises(NotCode, match="'rate'"):
        given_to(Doubled(3, 0.25))


def test_looking_for_arguments_draws_nothing():
    net, before = Net(3, deep=True), rng_state()
    given_to(net)
    assert rng_state().same_as(before)


def test_other_arguments_make_a_smaller_object():
    net = Net(6)
    assert remade(net, {id(net): {"width": 1}}).hidden.units == 1


class Focal(keras.losses.Loss):
    def __init__(self, gamma=2.0):
        super().__init__(name="focal")
        self.gamma = gamma

    def call(self, y_true, y_pred):
        return -((1 - y_pred) ** self.gamma) * y_true * keras.ops.log(y_pred)


class Told(Focal):
    def get_config(self):
        return {"gamma": self.gamma}


@pytest.mark.parametrize("kind", [Focal, Told])
def test_a_loss_of_ones_own_is_written_with_what_it_was_given(kind):
    assert given_to(kind(3.5))["gamma"] == 3.5
    assert construction(kind(3.5), Lines()) == f"{kind.__name__}(3.5)"


def test_a_loss_of_keras_says_it_by_its_configuration():
    assert construction(keras.losses.Huber(delta=0.3), Lines()) == "keras.losses.Huber(0.3)"


@pytest.mark.parametrize("name", ["Huber", "Tversky", "Dice", "CategoricalFocalCrossentropy", "LogCosh"])
def test_losses_of_keras_are_written_without_what_is_usual(name):
    kind = getattr(keras.losses, name)
    assert construction(kind(), Lines()) == f"keras.losses.{name}()"
