"""What a finished model answers, as numbers for the page; what a script's settings are; what the course was."""

import keras
import numpy as np
import pytest

import tsguard
from tsguard.dataset import Data
from tsguard.probes.score import sample
from tsguard.report import dumps, loads
from tsguard.train import course, pictures
from tsguard.train.course import Course
from tsguard.train.told import settings_of


def answering(values, loss="mse", shape=(1,)):
    """A model that gives its input back, so that the test writes the answers."""
    model = keras.Sequential([keras.Input(shape), keras.layers.Activation("linear")])
    model.compile("sgd", loss)
    return model, np.asarray(values, "float32")


def test_the_confusion_counts_every_sample_under_its_own_name():
    scores = np.eye(3, dtype="float32")[[0, 1, 1, 2, 2, 2]]
    model, x = answering(scores, "sparse_categorical_crossentropy", (3,))
    found = pictures.of_answers(model, sample(Data(x, np.array([0, 1, 2, 2, 2, 2]))))
    assert found["confusion"] == {"classes": [0, 1, 2], "counts": [[1, 0, 0], [0, 1, 0], [0, 1, 3]]}


def test_too_many_classes_are_no_picture():
    many = np.arange(pictures.CLASSES_MAX + 1)
    assert pictures.confusion(np.eye(len(many)), many) == {}


def test_courses_are_of_the_best_a_typical_and_the_worst_sample():
    true = np.tile(np.linspace(0, 1, 8, dtype="float32"), (5, 1))
    model, x = answering(true + np.arange(5, dtype="float32")[:, None], shape=(8,))
    model.evaluate(x, true, verbose=0)  # Keras builds the compiled loss on first use
    found = pictures.of_answers(model, sample(Data(x, true)))
    assert [(one["name"], one["sample"], round(one["rmse"], 3)) for one in found["courses"]] == [
        ("best", 0, 0.0), ("typical", 2, 2.0), ("worst", 4, 4.0)
    ]  # fmt: skip
    assert len(found["courses"][0]["true"]) == 8
    assert found["predicted_true"]["own_loss"] is False


def test_short_answers_are_no_course_and_runaway_ones_no_reason_to_fail():
    model, x = answering([[1.0, 2.0], [3e38, -3e38]], shape=(2,))
    assert "courses" not in pictures.of_answers(model, sample(Data(x, np.zeros((2, 2), "float32"))))
    model, x = answering(np.full((4, 6), 3e38), shape=(6,))
    dumps(pictures.of_answers(model, sample(Data(x, np.zeros((4, 6), "float32")))))


def test_an_own_loss_is_told():
    model, x = answering([[1.0], [2.0]], lambda y, p: keras.ops.mean(keras.ops.abs(y - p)))
    found = pictures.of_answers(model, sample(Data(x, x)))
    assert found["predicted_true"]["own_loss"] is True


def settings(rate=0.01, loss="mse", rows=32, **fit):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), loss)
    x = np.random.default_rng(0).normal(size=(rows, 4))
    return settings_of(model, Data(x, x[:, :1]), fit)


def test_the_settings_of_a_script_are_read_off_its_objects():
    found = settings(epochs=3, batch_size=8, callbacks=[object()], class_weight={0: 1.0})
    assert found["optimizer"]["class"] == "Adam"
    assert found["optimizer"]["learning_rate"] == pytest.approx(0.01)
    assert found["model"] == {"class": "Sequential", "layers": 2, "parameters": 19}
    assert found["loss"] == "mse"
    assert settings(loss=keras.losses.Huber(delta=2.0))["loss"] == "Huber(delta=2.0)"
    assert settings(loss=lambda y, p: y - p)["loss"] == "<lambda>"
    assert found["data"]["rows"] == 32
    assert found["train"] == {"epochs": 3, "batch_size": 8, "class_weight": {"0": 1.0}}
    assert loads(dumps(found)) == found


def test_the_same_settings_read_the_same_and_others_differ_where_they_do():
    assert settings(epochs=3) == settings(epochs=3)
    assert settings(epochs=3)["optimizer"] != settings(0.02, epochs=3)["optimizer"]
    assert settings()["data"]["digest"] != settings(rows=64)["data"]["digest"]


def test_objects_that_refuse_to_tell_cost_nothing():
    class Odd:
        def __getattr__(self, name):
            raise RuntimeError(name)

    assert settings_of(Odd(), None, {"epochs": 2}) == {"train": {"epochs": 2}}


def test_the_course_tells_epochs_trips_and_recoveries_and_keeps_its_bound():
    now = [10.0]
    heard = Course(clock=lambda: now[0])
    for epoch in range(3 * course.MOMENTS_MAX):
        now[0] += 1
        heard.hear({"kind": "epoch", "epoch": epoch, "logs": {"loss": 0.5, "mae": 1.0}}, step=epoch)
    heard.hear({"kind": "trip", "code": "loss-spike", "step": 7})
    heard.hear({"kind": "recovery", "text": "Rolled back.", "step": 7})
    heard.hear({"kind": "recorder", "text": "not told"})
    told = heard.moments()
    assert len(told) <= course.MOMENTS_MAX + 2
    assert told[0].text == "epoch 0: loss 0.5"
    assert (told[0].at, told[0].step) == (1.0, 0)
    assert [(one.kind, one.text) for one in told[-2:]] == [("trip", "loss-spike"), ("recovery", "Rolled back.")]
    assert heard.moments(since=0.0)[0].at == 11.0


def test_the_report_of_a_run_holds_its_course_its_memory_and_its_settings(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    report = tsguard.fit(model, x, x[:, :1], epochs=3, verbose=0, out=tmp_path, diagnose=False)
    kinds = [moment.kind for moment in report.timeline]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("epoch") == 3
    assert kinds.count("check") > 10
    assert kinds.index("check") < kinds.index("gate") < kinds.index("train") < kinds.index("epoch")
    assert [moment.at for moment in report.timeline] == sorted(moment.at for moment in report.timeline)
    assert report.provenance.config["optimizer"]["class"] == "Adam"
    assert report.plan["forecast"]["batches_per_epoch"] == 2
