"""Every test of the families begins from one seed: what it finds must not depend on the tests before it."""

import keras
import pytest


@pytest.fixture(autouse=True)
def one_seed():
    keras.utils.set_random_seed(0)
