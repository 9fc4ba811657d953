"""Each form of a law's question finds a sick model and passes its healthy twin, with Keras alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.laws.results import VALID, written_array
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.forms import question_of

RNG = np.random.default_rng(0)


def found(code, before, after, distance, **where):
    """A finding as a law makes it."""
    sides = [Evidence("batch", {key: written_array(leaf) for key, leaf in side.items()}, name)
             for name, side in (("before", before), ("after", after)) if side]  # fmt: skip
    return Finding(
        code, Status.FAIL, Role.CAUSE, "broken", where=where, evidence=(*sides, Evidence("value", distance, "distance"))
    )


def asked(finding, model, like, padding="Padding()"):
    return question_of(finding, f"padding = {padding}", model, like)


def broken(question, model):
    return question.broken(Case(model, Batch(question.arrays["x"]), Fingerprint("law", "law", None, None)))


class Keeps(layers.Conv1D):
    """A convolution of one step that hands the mask on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True


def convolved(layer):
    keras.utils.set_random_seed(0)
    ids = keras.Input((4,), dtype="int32")
    h = layer(layers.Embedding(5, 3, mask_zero=True)(ids))
    return keras.Model(ids, layers.GlobalAveragePooling1D()(h))


@pytest.mark.filterwarnings("ignore:Layer 'conv'")
def test_a_mask_that_a_layer_loses():
    ids = np.array([[1, 2, 0, 0]], "int32")
    finding = found("mask-dropped", {"x": ids, VALID: ids > 0}, {}, {"moved": 0.1}, layer="m/conv", phase="forward")
    sick = convolved(layers.Conv1D(2, 1, name="conv"))
    question = asked(finding, sick, Batch(ids))
    assert any("_keras_mask" in line for line in question.lines)
    assert broken(question, sick)
    assert not broken(question, convolved(Keeps(2, 1, name="conv")))


class Weighing(keras.Model):
    """A loss of one's own that reads the mask, which no output hangs on."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(x["mask"][..., None] * ops.square(y - y_pred))


@pytest.mark.parametrize("kind", [keras.Model, Weighing])
def test_a_mask_that_only_an_own_loss_may_use_is_no_question_of_outputs(kind):
    values, mask = keras.Input((2, 1), name="values"), keras.Input((2,), name="mask")
    model = kind({"values": values, "mask": mask}, layers.Dense(1)(values))
    before = {"values": np.ones((1, 2, 1), "float32"), "mask": np.array([[1.0, 0.0]], "float32")}
    after = {**before, "mask": np.ones((1, 2), "float32")}
    finding = found("mask-dropped", before, after, {"moved": 0.0}, input="mask", phase="forward")
    question = asked(finding, model, Batch(before))
    assert (question is None) == (kind is Weighing)
    assert question is None or broken(question, model)


def added(adder):
    keras.utils.set_random_seed(0)
    ids = keras.Input((4,), dtype="int32")
    h = layers.Embedding(5, 3, mask_zero=True)(ids)
    return keras.Model(ids, layers.GlobalAveragePooling1D()(adder([h, ops.ones_like(h)])))


def test_a_mask_that_a_function_loses_also_where_its_graph_is_made_again():
    ids = np.array([[1, 2, 0, 0]], "int32")
    sick = added(lambda both: ops.add(*both))
    [name] = [one.name for one in sick.operations if type(one).__name__ == "Add"]
    finding = found("mask-dropped", {"x": ids, VALID: ids > 0}, {}, {"moved": 0.1}, layer=name, phase="forward")
    question = asked(finding, sick, Batch(ids))
    assert broken(question, sick)
    assert broken(question, sick), "asked twice, it is as it was found"
    assert broken(question, added(lambda both: ops.add(*both))), "of another name"
    assert not broken(question, added(layers.Add()))


def pooled(mean):
    keras.utils.set_random_seed(0)
    values, mask = keras.Input((None, 2), name="values"), keras.Input((None,), name="mask")
    flags = layers.Reshape((-1, 1))(mask)
    h = layers.Multiply()([layers.Dense(3)(values), flags])
    total = ops.sum(h, axis=1)
    count = ops.sum(flags, axis=1) if mean else ops.sum(ops.ones_like(flags), axis=1)
    model = keras.Model({"values": values, "mask": mask}, layers.Dense(1)(total / count))
    model.compile("sgd", "mse")
    return model


def two_lengths():
    values = RNG.normal(size=(2, 3, 2)).astype("float32")
    short = {"values": values, "mask": np.ones((2, 3), "float32")}
    long = {"values": np.pad(values, [(0, 0), (0, 2), (0, 0)]), "mask": np.pad(short["mask"], [(0, 0), (0, 2)])}
    return short, long


@pytest.mark.parametrize("phase", ["loss", "backward"])
def test_more_padding_changes_loss_and_gradients(phase):
    short, long = two_lengths()
    y = {"y[y]": np.ones((2, 1), "float32")} if phase == "loss" else {}
    flags = [{VALID: side["mask"] > 0} for side in (short, long)]
    finding = found(
        "pad-length", {**flags[0], **short, **y}, {**flags[1], **long, **y}, {"moved": 1.0, "tolerance": 1e-5},
        phase=phase, law="more padding",
    )  # fmt: skip
    sick = pooled(mean=False)
    question = asked(finding, sick, Batch(short, np.ones((2, 1), "float32")))
    assert question is not None
    assert broken(question, sick)
    assert not broken(question, pooled(mean=True))


def with_features(*, masked):
    keras.utils.set_random_seed(0)
    values, mask = keras.Input((3, 4), name="values"), keras.Input((4,), name="features")
    h = layers.Multiply()([values, layers.Reshape((1, 4))(mask)]) if masked else values
    return keras.Model({"values": values, "features": mask}, layers.Dense(2)(h))


def test_padded_features_have_no_gradient():
    x = {"values": RNG.normal(size=(2, 3, 4)).astype("float32"), "features": np.array([[1, 1, 0, 0]] * 2, "float32")}
    law = "padded features have no gradient"
    finding = found("pad-leak-grad", {VALID: np.ones((2, 3), bool), **x}, {}, {"moved": 1.0}, law=law, phase="backward")
    sick = with_features(masked=False)
    question = asked(finding, sick, Batch(x), "Padding(features=(2, 'features'))")
    assert broken(question, sick)
    assert not broken(question, with_features(masked=True))


def of_a_set(*, ranked):
    keras.utils.set_random_seed(0)
    values, mask = keras.Input((None, 4), name="values"), keras.Input((4,), name="features")
    h = ops.sum(values * mask[:, None, :] * (ops.arange(4, dtype="float32") if ranked else 1.0), axis=-1)
    return keras.Model({"values": values, "features": mask}, ops.expand_dims(h, -1))


def test_features_of_a_set_in_another_order():
    x = {"values": RNG.normal(size=(2, 3, 4)).astype("float32"), "features": np.array([[1, 1, 0, 1]] * 2, "float32")}
    turned = {key: leaf[..., [2, 0, 3, 1]] for key, leaf in x.items()}
    finding = found("feature-order", x, turned, {"moved": 1.0, "tolerance": 1e-6}, law="order", phase="forward")
    sick = of_a_set(ranked=True)
    question = asked(finding, sick, Batch(x), "Padding(features=(-1, 'features'))")
    assert broken(question, sick)
    assert not broken(question, of_a_set(ranked=False))


class Doubles(layers.Layer):
    """Another model in training, behind a dropout that is none."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.drop = factor, layers.Dropout(0.5)

    def call(self, x, training=False):
        x = self.drop(x, training=training)
        return x * self.factor if training else x


def test_training_that_differs_by_more_than_its_noise():
    x = RNG.normal(size=(2, 3)).astype("float32")

    def made(factor):
        return keras.Sequential([keras.Input((3,)), layers.BatchNormalization(), Doubles(factor), layers.Dense(1)])

    finding = found("train-eval-gap", {"x": x}, {"x": x}, {"moved": 1.0, "tolerance": 1e-6}, output="output")
    sick = made(2.0)
    question = asked(finding, sick, Batch(x))
    assert broken(question, sick)
    assert not broken(question, made(1.0))


def test_a_model_that_was_never_compiled_is_written_without_a_loss():
    from tsguard.repro.code import compiling
    from tsguard.repro.code.lines import Lines
    from tsguard.repro.reduce import measure

    model = with_features(masked=False)
    assert compiling.compile_line(model, Lines(), exact=True) == []
    x = {"values": np.ones((1, 3, 4), "float32"), "features": np.ones((1, 4), "float32")}
    assert measure(Case(model, Batch(x), Fingerprint("law", "law", None, None)))[0] > 0


def test_a_law_keeps_the_layer_at_fault_and_the_shape_of_the_outputs():
    from fixtures.padding import ZOO
    from tsguard.checks.laws import findings_of
    from tsguard.dataset import Data
    from tsguard.laws import run
    from tsguard.repro.find import other_case

    subject = ZOO["max_over_padding"].build(True)
    broken = findings_of(run(subject.model, (subject.x, subject.y), subject.padding, budget_s=20))
    data = Data(subject.x, subject.y)
    case = other_case(broken, model=subject.model, data=data, name="max", budget_s=30)
    text = case.makers[0]().files["repro.py"].decode()
    assert "GlobalMaxPooling1D" in text, "without it no output is pooled, and everything moves"
    assert "Dense" not in text
    assert "tsguard" not in text
