"""Checks and laws of a user's own project register through entry points, without a word in tsguard."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

OWN_CHECK = """
from tsguard import catalogue
from tsguard.checks.registry import check

@check(name="names of layers", codes=("config-unused-key",), needs=("model",), cost=0)
def layer_names(context):
    for layer in context.model.layers:
        if "tmp" in layer.name:
            words = f"layer {layer.name!r} is called temporary"
            yield catalogue.finding("config-unused-key", words, where={"layer": layer.name})
"""

OWN_LAW = """
from tsguard.dataset import leaves
from tsguard.laws import Counterexample, Law
from tsguard.laws.law import any_batches

def judge(ground, example):
    batch = ground.batch(example)
    lowest = min(float(output.min()) for output in leaves(ground.bench.outputs(batch.x)))
    if lowest < 0:
        words = f"an answer of {lowest:.3g}"
        return Counterexample("answers are not negative", "output-activation", words, batch.x, size=example.size)

NEVER_NEGATIVE = Law("answers are not negative", "output-activation", judge, lambda ground: None, any_batches)
"""

SCRIPT = """
import keras, numpy as np, tsguard, tsguard.laws
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="tmp_layer"), keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
report = tsguard.check(model, x, x[:, :1])
laws = tsguard.laws.run(model, (x, x[:, :1]), only=["answers are not negative"])
print([(law.law, law.outcome) for law in laws])
print([(f.check, f.where["layer"]) for f in report.findings if f.check == "names of layers" and f.where])
"""


@pytest.fixture
def project(tmp_path):
    """An installed project: a module and the metadata that names its entry point."""
    (tmp_path / "my_checks.py").write_text(textwrap.dedent(OWN_CHECK))
    (tmp_path / "my_laws.py").write_text(textwrap.dedent(OWN_LAW))
    info = tmp_path / "my_project-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-project\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tsguard.checks]\nmy_checks = my_checks\n\n[tsguard.laws]\nnever_negative = my_laws:NEVER_NEGATIVE\n"
    )
    return tmp_path


@pytest.mark.slow
def test_a_check_and_a_law_of_an_installed_project_are_asked(project):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(project)])},
        capture_output=True,
        text=True,
        check=False,
    )
    law, check = done.stdout.strip().splitlines() or ("", "")
    assert law == "[('answers are not negative', 'broken')]", done.stderr
    assert check == "[('names of layers', 'tmp_layer')]", done.stderr


def test_two_checks_of_one_name_are_refused():
    from tsguard.checks.registry import check

    check(name="a name used twice", codes=("data-scale",))(lambda context: ())
    with pytest.raises(ValueError, match="rename one"):
        check(name="a name used twice", codes=("data-scale",))(lambda context: [])
    from tsguard.checks import registry

    del registry._CHECKS["a name used twice"]


def test_a_check_that_needs_what_nobody_has_is_refused():
    from tsguard.checks.registry import check

    with pytest.raises(ValueError, match="may need"):
        check(name="x", codes=("data-scale",), needs=("luck",))
