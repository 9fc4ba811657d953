"""Findings that are no single failing step become scripts as well: broken laws, and trainings that are sick."""

import keras
import numpy as np
import pytest
from keras import layers

import tsguard
from tests.repro.programs import run, too_fast
from tsguard.dataset import Data
from tsguard.evidence import Proof
from tsguard.findings import Finding, Role, Status
from tsguard.repro.find import other_case


def pooled():
    """Averages over padding too."""
    keras.utils.set_random_seed(0)
    values = keras.Input((6, 2), name="values")
    mask = keras.Input((6,), dtype="bool", name="mask")
    h = layers.GlobalAveragePooling1D()(layers.Dense(3)(values))
    model = keras.Model({"values": values, "mask": mask}, layers.Dense(1)(h))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    present = np.arange(6)[None] < rng.integers(2, 6, 16)[:, None]
    x = np.where(present[..., None], rng.normal(size=(16, 6, 2)), 0).astype("float32")
    return model, {"values": x, "mask": present}, rng.normal(size=(16, 1)).astype("float32")


@pytest.mark.slow
def test_a_broken_law_becomes_a_script_that_fails_by_itself(tmp_path):
    from tsguard.checks.laws import findings_of
    from tsguard.laws import run as ask

    model, x, y = pooled()
    padding = tsguard.Padding(inputs={"values": 1}, mask="mask")
    broken = [f for f in findings_of(ask(model, (x, y), padding, budget_s=20)) if f.status == "FAIL"]
    assert broken
    case = other_case(broken, model=model, data=Data(x, y), name="law", budget_s=10)
    script = case.save(tmp_path)
    code, said = run(script)
    assert code == 1
    assert "moved by" in said
    assert "tsguard" not in script.read_text(), "numpy, keras and torch are all that a script of values needs"
    assert case.size < case.original_size / 10
    assert (tmp_path / "test_repro.py").exists()
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_a_sick_training_becomes_a_script_of_fewer_rows_and_steps(tmp_path):
    model, x, y = too_fast()
    finding = Finding(
        "lr-too-high", Status.FAIL, Role.CAUSE, "the rate is too high",
        proof=Proof("learning rate × 0.01", "heals"),
    )  # fmt: skip
    case = other_case([finding], model=model, data=Data(x, y), name="sick", budget_s=60)
    assert case is not None
    assert case.size < case.original_size
    script = case.save(tmp_path)
    code, said = run(script)
    assert code == 1, said
    text = script.read_text()
    mended = text.replace("Adam(20.0", "Adam(0.2")
    assert mended != text
    (tmp_path / "mended.py").write_text(mended[: mended.index("mended = (")])
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


def test_where_nothing_was_found_nothing_is_made():
    model, x, y = too_fast()
    assert other_case([], model=model, data=Data(x, y), name="none", budget_s=1) is None
