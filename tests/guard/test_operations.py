"""Every planted fault is found at its operation, layer, step, phase and element; its healthy twin is left alone."""

import keras
import pytest

from fixtures.operations.faults import BATCH, FAULTS, STEP
from fixtures.operations.programs import PROGRAMS
from tsguard.findings import Status
from tsguard.guard.callback import Guard

QUICK = {
    "functional/log_zero",
    "cell/zero_over_zero",
    "subclassed/sqrt_at_zero",
    "loss/empty_selection",
    "attention/softmax_over_nothing",
    "second_output/log_negative",
    "update/rate_by_zero",
    "padding/recurrent",
    "hidden/nan_to_num",
}


def top(fault, sick):
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    model, x, y = fault.build(sick)
    guard = Guard(out=None)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[guard])
    return guard.report.findings[0]


def cases():
    for fault in [*FAULTS, *PROGRAMS]:
        yield pytest.param(fault, id=fault.name, marks=() if fault.name in QUICK else pytest.mark.slow)


def tail(path):
    return None if path is None else path.split("/")[-1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:std:UserWarning")
@pytest.mark.parametrize("fault", list(cases()))
def test_a_planted_fault_is_named_and_its_twin_is_not(fault):
    found = top(fault, sick=True)
    where = found.where
    assert (found.code, where.get("op"), where.get("phase"), where.get("step")) == (
        fault.code,
        fault.op,
        fault.phase,
        STEP,
    ), found.message
    if fault.layer is not None:
        assert tail(where.get("layer")) == fault.layer
    if fault.loss_term is not None:
        assert tail(where.get("loss_term")) == fault.loss_term
    assert {key: where.get(key) for key in fault.where} == fault.where
    assert (where.get("sample"), where.get("timestep"), where.get("feature")) == (
        fault.sample,
        fault.timestep,
        fault.feature,
    )
    assert found.status == "FAIL"
    assert top(fault, sick=False).status < Status.FAIL


def test_there_are_enough_faults_and_half_of_them_are_held_out():
    assert len(FAULTS) + len(PROGRAMS) >= 90
    for faults in (FAULTS, PROGRAMS):
        assert len({fault.name for fault in faults}) == len(faults)
        assert abs(sum(fault.held_out for fault in faults) - len(faults) / 2) <= 1
    assert {fault.phase for fault in FAULTS} == {"data", "forward", "loss", "backward", "update"}
