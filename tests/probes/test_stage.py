import keras
import numpy as np
import torch
from keras import layers, ops

from tsguard.dataset import Data
from tsguard.probes.graph import last_operation, leaf_tensors
from tsguard.probes.stage import Snapshot, flat, get_ready, measured_batches, take_step


def simple(**compile_):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu", name="body"), layers.Dense(2, "softmax")])
    model.compile(**{"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", **compile_})
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    return model, Data(x, (x[:, 0] > 0).astype("int32"), batch_size=10)


def ready(**compile_):
    model, data = simple(**compile_)
    batch = measured_batches(data)[0]
    get_ready(model, batch)
    return model, batch


def test_a_step_without_update_moves_nothing_and_tells_loss_and_gradients():
    model, batch = ready()
    before = [v.value.detach().clone() for v in model.trainable_variables]
    step = take_step(model, batch)
    assert step.error is None
    assert all(torch.equal(a, v.value) for a, v in zip(before, model.trainable_variables, strict=True))
    expected = model.compute_loss(x=batch.x, y=batch.y, y_pred=model(batch.x, training=True))
    assert abs(step.loss - float(expected.detach())) < 1e-6
    assert [v.path for v in step.fed_variables] == [v.path for v in model.trainable_variables]


def test_the_fed_gradient_is_the_gradient_of_the_loss():
    model, batch = ready()
    step = take_step(model, batch)
    kernel = model.trainable_variables[0]
    loss = model.compute_loss(x=batch.x, y=batch.y, y_pred=model(batch.x, training=True))
    (expected,) = torch.autograd.grad(loss, [kernel.value])
    assert torch.allclose(step.gradient_of(kernel), expected)


def test_doors_are_closed_again_when_the_step_fails():
    model, batch = ready()
    call, backward = keras.layers.Layer.__call__, torch.autograd.backward
    step = take_step(model, type(batch)(batch.x[:, :2], batch.y))
    assert step.error is not None
    assert keras.layers.Layer.__call__ is call
    assert torch.autograd.backward is backward


def test_an_answer_in_place_of_the_models_own_reaches_the_loss():
    model, batch = ready()
    right = torch.nn.functional.one_hot(batch.y.long(), 2).float().requires_grad_()
    assert take_step(model, batch, answer=right).loss < 1e-5


def test_a_snapshot_brings_weights_generators_and_gradients_back():
    model, batch = ready(optimizer="adam")
    start = Snapshot(model)
    first = [take_step(model, batch, update=True).loss for _ in range(3)]
    start.restore()
    assert all(v.value.grad is None for v in model.trainable_variables)
    assert [take_step(model, batch, update=True).loss for _ in range(3)] == first


def test_the_graph_names_the_last_operation_and_holds_every_weight():
    model, batch = ready()
    step = take_step(model, batch)
    assert last_operation(flat(step.answer)[0]).op == "Softmax"
    assert {id(v.value) for v in model.trainable_variables} <= set(leaf_tensors(step.root))


def test_under_loss_scaling_the_loss_is_told_unscaled():
    model, data = simple()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0), model.loss)
    batch = measured_batches(data)[0]
    get_ready(model, batch)
    assert abs(take_step(model, batch).loss - float(ops.log(2.0))) < 1.0
