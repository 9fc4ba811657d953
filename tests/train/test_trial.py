"""Resume is tried before a run: what is exact passes, what keeps a state of its own is named, nothing stays behind."""

import keras
import numpy as np
import pytest
import torch

from tsguard.checks.registry import Context
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.subject import Subject
from tsguard.train.trial import CHECK

X = np.random.default_rng(0).normal(size=(48, 5)).astype("float32")
Y = X[:, :1].copy()


class Counting(keras.Model):
    """Steps by a number that nobody saves."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.made = [0]

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        self.made[0] += 1
        x, y = data[:2]
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True)) / self.made[0]
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss.detach()}


def healthy():
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(1)])


def asked(model, data, **fit):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(0.01, gradient_accumulation_steps=2), "mse")
    subject = Subject.from_model(model)
    before = [w.copy() for w in model.get_weights()]
    generator = torch.get_rng_state().clone()
    (found,) = run_checks(Context(subject=subject, data=data, facts={"fit": {"batch_size": 8, **fit}}), [CHECK])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert torch.equal(generator, torch.get_rng_state())
    return found


class Shuffled(keras.utils.PyDataset):
    def __init__(self, **options):
        super().__init__(**options)
        self.order = np.arange(len(X))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        rows = self.order[index * 8 : index * 8 + 8]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        np.random.shuffle(self.order)  # Keras starts workers before on_epoch_begin: to shuffle there is a race


def loader():
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "make", [lambda: Data(X, Y), lambda: Data(Shuffled()), lambda: Data(Shuffled(workers=2)), lambda: Data(loader())]
)
def test_dropout_statistics_accumulation_and_order_resume_to_the_bit(make):
    found = asked(healthy(), make())
    assert (found.status, found.code) == ("PASS", "resume-mismatch"), found.message
    assert "end with the bits" in found.message


def test_a_state_that_nobody_saves_is_found_before_the_run():
    model = Counting()
    model(X[:2])
    found = asked(model, Data(X, Y))
    assert found.status == "WARN"
    assert found.where["parameter"].endswith("kernel")
    assert "will not be the run that was interrupted" in found.message


@pytest.mark.parametrize(
    ("data", "words"), [(Data(iter([(X, Y)])), "only once"), (Data(X[:4], Y[:4]), "three batches")]
)
def test_what_cannot_be_tried_is_not_passed(data, words):
    found = asked(healthy(), data)
    assert found.status == "NOT_RUN"
    assert words in found.message
