"""What the laws find in `pytest suites/` reaches the suite's page: both batches as grids, padded steps marked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SUBJECT = """
import keras
import numpy as np
from keras import layers

LENGTHS = np.array([2, 5, 7, 3])


def model():
    x, m = keras.Input((None, 2), name="values"), keras.Input((None,), name="mask")
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Dense(3, name="project")(x))
    model = keras.Model({"values": x, "mask": m}, layers.Dense(1)(pooled))
    model.compile("adam", "mse")
    return model


def data():
    mask = (np.arange(7)[None] < LENGTHS[:, None]).astype("float32")
    values = np.random.default_rng(0).normal(size=(4, 7, 2)).astype("float32") * mask[..., None]
    return {"values": values, "mask": mask}, np.ones((4, 1), "float32")
"""

RUN = """
name: sick
model: {use: "sick_subject:model"}
data: {use: "sick_subject:data"}
padding: {inputs: {values: 1}, mask: mask, outputs: null}
"""


@pytest.mark.slow
def test_broken_laws_reach_the_page_with_their_counterexamples(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{pytester.path}")
    pytester.path.joinpath("sick_subject.py").write_text(SUBJECT, encoding="utf-8")
    pytester.path.joinpath("run.yaml").write_text(RUN, encoding="utf-8")
    for name in ("conftest.py", "test_padding.py"):
        shutil.copy(ROOT / "suites" / name, pytester.path / name)
    result = pytester.runpytest_subprocess("--run", "run.yaml", "--report", "out", "-p", "no:cacheprovider")
    assert result.ret == 1
    (page,) = (pytester.path / "out").glob("suites-*/suite.html")
    text = page.read_text(encoding="utf-8")
    assert "pad-leak-value" in text
    assert "GlobalAveragePooling1D" in text
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    leak = next(f for f in report["findings"] if f["code"] == "pad-leak-value" and f["status"] == "FAIL")
    assert leak["where"]["layer"] == "pool"
    batches = {e["name"]: e["value"] for e in leak["evidence"] if e["kind"] == "batch"}
    assert batches["after"]["valid"]["values"] == [[True, False]]
    assert {"PASS", "NOT_RUN"} <= {f["status"] for f in report["findings"]}
