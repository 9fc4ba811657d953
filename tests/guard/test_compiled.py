"""Under `jit_compile=True` (torch.compile) the guard stands outside: the bits stay, the fault is found, what is
unseen is said.

`eager` runs what torch.compile captured without generating code, which is quick; `inductor` is what a user gets, and
compiles C++ for half a minute.
"""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tests.guard.programs import arrays, bits
from tsguard.findings import Status
from tsguard.guard.callback import Guard

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch.compile warns about itself


@pytest.fixture(params=["eager", "inductor"])
def compiler(request, monkeypatch, tmp_path):
    if request.param == "inductor":
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=request.param))
    return request.param


def build():
    torch._dynamo.reset()
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6, 3)), layers.Flatten(), layers.Dense(4, "tanh"), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=True)
    return model


def test_the_bits_stay_the_loss_is_read_and_what_is_not_seen_is_said(compiler):
    x, y = arrays()
    plain, watched, guard = build(), None, Guard(out=None)
    seen = plain.fit(x, y, batch_size=16, shuffle=False, epochs=2, verbose=0).history["loss"]
    watched = build()
    watched.fit(x, y, batch_size=16, shuffle=False, epochs=2, verbose=0, callbacks=[guard])
    assert bits(plain) == bits(watched)
    assert [f.message for f in guard.report.findings if f.status >= Status.FAIL] == []
    (unseen,) = [f for f in guard.report.findings if f.check == "guard under jit_compile"]
    assert unseen.status == "NOT_RUN"
    assert "loss terms" in unseen.message
    losses = guard.report.series["loss"].y
    assert len(losses) == guard.outcome.steps == 12
    assert np.mean(losses[:6]) == pytest.approx(seen[0], rel=1e-4)
    assert np.mean(losses[6:]) == pytest.approx(seen[1], rel=1e-4)


def test_a_fault_is_found_by_running_the_step_eagerly(compiler):
    x, y = arrays()
    x[70, 2, 1] = np.nan
    sick, guard = build(), Guard(out=None)
    sick.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[guard])
    finding = guard.report.findings[0]
    assert finding.code == "data-nonfinite"
    assert (finding.where["step"], finding.where["row"], finding.where["timestep"]) == (4, 70, 2)
    assert guard.outcome.facts["binding"] == "data-bound"
    assert guard.outcome.stopped
    assert all(np.isfinite(v.value.detach().numpy()).all() for v in sick.variables)
