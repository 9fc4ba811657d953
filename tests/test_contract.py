"""The public contract: other people's scripts hang on these names. Add, never rename."""

import importlib
import inspect

import pytest

import tsguard
from tsguard import catalogue
from tsguard.findings import WHERE_KEYS, Role, Status
from tsguard.report import METRIC_NAMES, Report, Verdict

CODES = """
data-nonfinite data-sentinel data-scale data-constant data-order data-leak data-volume data-imbalance data-labels
data-drift data-precision data-mispaired input-encoding
pad-leak-value pad-leak-grad pad-leak-loss pad-length pad-all-masked pad-nan-poison pad-time mask-dropped mask-inverted
future-leak batch-coupling
dead-units saturated-units vanishing-gradient exploding-gradient disconnected-parameters untracked-parameters
gradient-accumulates symmetric-init init-scale output-activation loss-mismatch double-softmax loss-degenerate
loss-broadcast over-regularised under-capacity degenerate-attention transfer-nothing
lr-too-high lr-too-low loss-spike divergence no-learning overfitting clip-saturated amp-steps-skipped
loss-empty-selection loss-term-dominates
variance-collapse biased-predictions class-collapse representation-collapse below-baseline metric-disagrees
nonfinite-forward nonfinite-loss nonfinite-backward nonfinite-update precision-overflow nan-hidden
config-unknown-key config-unused-key tracker-double-init child-failed nondeterministic resume-mismatch
checkpoint-roundtrip loader-bound train-eval-gap backend-mismatch export-mismatch off-plan
""".split()

WHERE = """
layer op phase step epoch batch timestep sample row feature column split entity config_key loss_term parameter law
expectation file line
""".split()

METRICS = """
r2 std_ratio correlation bias2_over_var rmse mae spread accuracy recall_min majority_share skill_vs_baseline loss
val_loss artifact_mb duration_min steps_per_s data_wait_share peak_mb gpu_used
""".split()

SIGNATURES = {
    "fit": [
        "model",
        "x",
        "y",
        "validation_data",
        "gates",
        "padding",
        "policy",
        "out",
        "resume",
        "preflight",
        "diagnose",
    ],
    "check": ["model_or_subject", "x", "y", "validation_data", "padding", "gates", "out", "budget_s"],
    "audit": ["data", "suite", "engine", "out"],
    "reduce": ["report_or_run", "budget_s"],
    "compare": ["report_a", "report_b"],
    "Guard": ["policy", "sync_every", "inspect", "out", "diagnose", "repro", "budget_s"],
}
DEFAULTS = {
    "fit": {"policy": "stop", "out": "reports", "resume": False, "preflight": True, "diagnose": True},
    "check": {"x": None, "y": None, "padding": None, "gates": None, "out": None, "budget_s": 60},
    "audit": {"suite": None, "engine": "arrow", "out": None},
    "reduce": {"budget_s": 120},
    "Guard": {
        "policy": "stop",
        "sync_every": "auto",
        "inspect": (),
        "out": "reports",
        "diagnose": True,
        "repro": "auto",
        "budget_s": 60,
    },
}


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signatures_are_kept(name):
    parameters = inspect.signature(getattr(tsguard, name)).parameters
    assert [p for p in parameters if p in SIGNATURES[name]] == SIGNATURES[name]
    for parameter, default in DEFAULTS.get(name, {}).items():
        assert parameters[parameter].default == default, parameter


def test_padding_has_its_fields_and_defaults():
    padding = tsguard.Padding()
    fields = {name: getattr(padding, name) for name in padding.__slots__}
    assert fields == {
        "inputs": None,
        "mask": None,
        "outputs": 1,
        "pad_value": 0.0,
        "side": "right",
        "causal": False,
        "features": None,
        "timestamps": None,
        "either_side": False,
        "feature_sets": False,
    }


def test_expect_validate_is_reached_through_the_package():
    parameters = inspect.signature(tsguard.expect.validate).parameters
    assert list(parameters)[:2] == ["suite", "data"]
    assert parameters["engine"].default == "arrow"
    assert parameters["result_format"].default == "SUMMARY"


def test_codes_are_kept():
    assert set(CODES) <= set(catalogue.entries())


def test_places_metrics_statuses_and_roles_are_kept():
    assert set(WHERE) <= WHERE_KEYS
    assert set(METRICS) <= set(METRIC_NAMES)
    assert [s.value for s in Status] == ["NOT_RUN", "PASS", "WARN", "FAIL", "ERROR"]
    assert [r.value for r in Role] == ["cause", "symptom", "note"]


def test_reports_findings_and_verdicts_have_their_fields():
    report = Report()
    for name in "verdict findings causes metrics series run path save _repr_html_".split():
        assert hasattr(report, name), name
    finding = catalogue.finding("data-leak", "m")
    for name in "code status role message where evidence remedy proof".split():
        assert hasattr(finding, name), name
    assert Verdict().reasons == ()


@pytest.mark.parametrize("name", [name for name in tsguard.__all__ if name not in ("__version__", "expect")])
def test_every_public_name_loads(name):
    assert getattr(tsguard, name) is not None


def test_exports_are_exactly_all():
    module = importlib.import_module("tsguard")
    assert sorted(dir(module)) == sorted(module.__all__)
    with pytest.raises(AttributeError, match="its names are"):
        _ = tsguard.nothing
