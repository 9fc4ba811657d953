"""A broken law as a few lines: they find the sick model, and not the mended one."""

import keras
import numpy as np
import pytest
from keras import layers

import tsguard
from tsguard.checks.laws import findings_of
from tsguard.laws import run
from tsguard.repro.case import Batch, Case, Fingerprint
from tsguard.repro.forms import question_of

PADDING = tsguard.Padding(inputs={"values": 1}, mask="mask")


def pooled(*, masked, over=layers.GlobalAveragePooling1D):
    keras.utils.set_random_seed(0)
    values, mask = keras.Input((6, 2), name="values"), keras.Input((6,), dtype="bool", name="mask")
    h = layers.Dense(3)(values)
    if masked:
        h = over()(h, mask=mask)
    else:
        h = over()(h)
    model = keras.Model({"values": values, "mask": mask}, layers.Dense(1)(h))
    model.compile("sgd", "mse")
    return model


def batch():
    rng = np.random.default_rng(0)
    present = np.arange(6)[None] < rng.integers(2, 6, 16)[:, None]
    x = np.where(present[..., None], rng.normal(size=(16, 6, 2)), 0).astype("float32")
    return Batch({"values": x, "mask": present}, rng.normal(size=(16, 1)).astype("float32"))


def case_of(model, x):
    return Case(model, Batch(x), Fingerprint("law", "law", None, None))


ASKED = {
    "padded values do not change valid outputs": "moved",
    "padded inputs have no gradient": "worst",
    "NaN and inf at padded positions reach no gradient": "sick",
    "more padding changes no output": "moved",
}


@pytest.mark.slow
@pytest.mark.parametrize("law", ASKED)
def test_the_lines_find_the_sick_model_and_not_the_mended_one(law):
    given = batch()
    sick = pooled(masked=False)
    results = run(sick, (given.x, given.y), PADDING, only=[law], budget_s=20)
    if results[0].outcome == "not-applicable":
        pytest.skip(results[0].reason)
    [broken] = [one for one in findings_of(results) if one.status in ("FAIL", "WARN")]
    test = next(e.value for e in broken.evidence if e.name == "pytest")
    question = question_of(broken, test, sick, given)
    assert question is not None
    assert any(line.startswith(ASKED[law]) for line in question.lines)
    assert question.broken(case_of(sick, question.arrays["x"]))
    if "NaN" not in law:  # a masked mean of NaN is NaN: that model would have to be mended elsewhere
        assert not question.broken(case_of(pooled(masked=True), question.arrays["x"]))


def test_a_model_that_refuses_the_batch_breaks_no_law():
    from tsguard.repro.questions import Question

    question = Question(("held = bool(keras.ops.all(model(x) == 0))",), "{held}", {"x": np.ones((1, 4), "float32")})
    inputs = keras.Input((3,))
    assert not question.broken(case_of(keras.Model(inputs, layers.Dense(1)(inputs)), None))
