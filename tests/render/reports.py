"""Reports of every kind, made by hand: what the pages must be able to show, from nothing at all to far too much."""

import math
from dataclasses import replace

from tsguard import catalogue
from tsguard.evidence import Curve, Evidence, Proof
from tsguard.findings import Finding, Role, Status
from tsguard.report import Moment, Provenance, Report, Run, Series, Verdict

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}$x_1$&[/red]\u2028" + "n" * 300


def proof(length=40):
    steps = tuple(range(length))
    return Proof(
        "rate × 0.01",
        "with a hundredth of the rate the loss falls to 0.02",
        Curve("as configured", steps, tuple(0.5 + 0.1 * step for step in steps)),
        Curve("rate × 0.01", steps, tuple(0.6 * 0.9**step for step in steps)),
        0.97,
        1.0,
        3,
    )


def batch(values, mask):
    return {
        "values": {"shape": [1, len(values), 1], "dtype": "float32", "values": [[[v] for v in values]]},
        "mask": {"shape": [1, len(mask)], "dtype": "bool", "values": [mask]},
    }


def counterexample(code="pad-leak-value", **where):
    """A finding as the laws give it: both batches and how far the answer moved."""
    return catalogue.finding(
        code,
        "the answer at step 2 moved by 0.8 when only the padded step 3 changed (tolerance 1e-6)",
        where={"layer": "pool", "timestep": 2, "sample": 0, **where},
        evidence=[
            Evidence("batch", batch([1.0, 2.0, -1.0, 0.0], [True, True, True, False]), "before"),
            Evidence("batch", batch([1.0, 2.0, -1.0, 7.5], [True, True, True, False]), "after"),
            Evidence("value", {"moved": 0.8, "tolerance": 1e-6}, "distance"),
            Evidence("source", "def test_padding(subject):\n    assert subject", "pytest"),
        ],
    )


def check_report():
    return Report(
        kind="check",
        name="forecaster",
        findings=(
            counterexample(),
            Finding("loss-empty-selection", Status.PASS, Role.NOTE, "the loss of 8 batches is finite"),
            Finding("future-leak", Status.NOT_RUN, Role.NOTE, "does not apply: the model does not claim to be causal"),
            Finding(
                "backend-mismatch", Status.ERROR, Role.NOTE, "the check itself crashed",
                evidence=(Evidence("traceback", "Traceback …"),),
            ),
        ),
        verdict=Verdict("FAIL", ("pad-leak-value: padding leaks", "artifact_mb = 900 is not < 500")),
        plan={"forecast": {"duration_min": 42.0, "cost": 1.25}, "samples": 512},
        timeline=(
            Moment(0.0, "start", "preflight started"),
            *(Moment(0.1 * n, "check", f"check {n}") for n in range(1, 30)),
            Moment(3.2, "gate", "gate: FAIL"),
        ),
        provenance=Provenance(command="tsguard check run.yaml", config={"train": {"epochs": 3}}, seeds={"seed": 1}),
    )  # fmt: skip


def shot(done):
    """What was answered after some epochs."""
    return {
        "epochs": done, "output": "load", "edges": [0.0, 1.0, 2.0, 3.0], "predicted": [done, 20 - done, 2],
        "true": [8, 8, 8], "outside": 0.1, "metrics": {"r2": 0.1 * done - 0.3, "std_ratio": 0.1, "correlation": 0.3},
        "idle": {"model/dense": 1 / done, "model/gru": 0.0},
    }  # fmt: skip


def train_report(steps=60, epochs=6):
    x = tuple(range(steps))
    falling = tuple(math.exp(-step / 20) + (math.nan if step == 7 else 0.0) for step in x)
    findings = (
        catalogue.finding(
            "lr-too-high",
            "the loss grew a hundredfold in 20 steps",
            where={"step": 20, "layer": "dense"},
            proof=proof(),
            evidence=[Evidence("file", name="reproduction", file="repro/repro.py")],
            explains=("divergence",),
        ),
        catalogue.finding("divergence", "the loss ended a hundred times as high", where={"step": 41}),
        catalogue.finding("below-baseline", "the model is worse than the mean", where={"output": "load"}),
    )
    classes = [[40, 3, 0], [6, 20, 1], [9, 1, 0]]
    return Report(
        kind="train",
        name="forecaster",
        findings=findings,
        metrics={
            "loss": 0.2, "val_loss": 0.3, "r2": 0.41, "std_ratio": 0.5, "correlation": 0.66, "bias2_over_var": 0.0,
            "duration_min": 3.0, "steps_per_s": 44.0, "peak_mb": 900.0, "gpu_used": 0.0, "data_wait_share": 0.1,
            "train/r2": 0.6, "val/r2": 0.41, "train/rmse": 0.1, "val/rmse": 0.2, "rmse": 0.2,
        },
        series={
            "loss": Series(falling, x), "loss/mse": Series(falling, x), "loss/l2": Series([0.1] * steps, x),
            "memory_mb": Series([500.0 + n for n in range(8)], [n * steps / 8 for n in range(8)]),
            "epoch/loss": Series([1 / (1 + n) for n in range(epochs)], (), "epoch"),
            "epoch/val_loss": Series([1.2 / (1 + n) for n in range(epochs)], (), "epoch"),
            "update_ratio": Series([1e-3 * (1 + n % 3) for n in x], x),
            "step_seconds": Series([0.02 + 0.01 * (n % 5) for n in x], x),
            **{f"grad_norm/layer_{k}/kernel": Series([10.0**-k / (1 + n) for n in x], x) for k in range(5)},
        },
        verdict=Verdict("FAIL", ("lr-too-high: the loss grew",)),
        figures={
            "predicted_true": {"true": [0.0, 1.0, 2.0, math.nan], "predicted": [0.1, 0.8, 1.5, 1.0]},
            "confusion": {"classes": [0, 1, 2], "counts": classes},
            "courses": [
                {"name": name, "sample": n, "rmse": 0.1, "true": [0.0, 1.0, 0.0, -1.0], "predicted": [0.1, n, 1, 0]}
                for n, name in enumerate(("best", "typical", "worst"))
            ],
            "snapshots": [shot(done) for done in (1, 5, 10)],
        },
        plan={"forecast": {"duration_min": 2.5, "peak_mb": 880.0}, "duration_min": 2.0, "peak_mb": 800},
        timeline=(
            Moment(0.0, "start", "preflight"), Moment(3.1, "gate", "before training: PASS"),
            Moment(3.2, "train", "training"), Moment(4.2, "epoch", "epoch 0: loss 0.9", 10),
            Moment(5.2, "trip", "loss grew", 20), Moment(5.3, "recovery", "rolled back", 20),
            *(Moment(5.3 + n, "epoch", f"epoch {n}", 10 * n + 10) for n in range(1, epochs)),
            Moment(6.3 + epochs, "end", "after training: FAIL"),
        ),
        provenance=Provenance(
            started="2026-01-02T03:04:05+00:00", versions={"keras": "3.15"}, config={"seed": 1}, host={"cores": 2}
        ),
        run=Run("ab12", "forecaster", "reports/forecaster-1"),
    )  # fmt: skip


def audit_report():
    def column(shift):
        return {
            "count": 100, "missing": 3, "mean": shift, "std": 1.0, "edges": [0.0, 1.0, 2.0, 3.0], "counts": [4, 9, 2]
        }  # fmt: skip

    return Report(
        kind="audit",
        name="household power",
        findings=(catalogue.finding("data-sentinel", "−999 stands for missing", where={"column": "load", "row": 4}),),
        metrics={"rows": 12000.0},
        verdict=Verdict("FAIL", ("data-sentinel: −999 stands for missing",)),
        figures={
            "distributions": {name: column(n) for n, name in enumerate(("load", "price", "wind"))},
            "missing": {"rows": [0, 50, 100], "share": {"load": [0.0, 0.5], "price": [1.0, 0.25], "wind": [0.0, 0.0]}},
            "expectations": [
                {"status": "FAIL", "expectation": "ExpectColumnValuesToNotBeNull", "column": "load", "message": "3 %"},
                {"status": "PASS", "expectation": "ExpectColumnToExist", "column": "wind", "message": "there"},
            ],
            "repairs": ["decimal comma in column load"],
        },
    )


def suite_report():
    return Report(
        kind="suite",
        name="suites",
        findings=(
            replace(counterexample(law="padding changes nothing"), check="suites/test_padding.py::test_leak"),
            Finding(
                "future-leak", Status.NOT_RUN, Role.NOTE, "no run was named", check="suites/test_data.py::test_rows"
            ),
        ),
        verdict=Verdict("FAIL", ("pad-leak-value",)),
        figures={
            "tests": [
                {
                    "test": "suites/test_padding.py::test_leak",
                    "outcome": "failed",
                    "seconds": 1.25,
                    "words": "E assert",
                },
                {"test": "suites/test_padding.py::test_mask", "outcome": "passed", "seconds": 0.5, "words": ""},
                {"test": "suites/test_data.py::test_rows", "outcome": "skipped", "seconds": 0.0, "words": "no data"},
            ]
        },
    )


def hostile_report():
    """Every name that a user or a data set can choose tries to be markup."""
    odd = HOSTILE
    base = train_report()
    findings = (
        catalogue.finding(
            "lr-too-high", odd, where={"layer": odd, "step": 3, "column": odd}, remedy=odd,
            proof=Proof(odd, odd, Curve(odd, (0, 1), (1, 2)), Curve(odd, (0, 1), (1, 0)), 1.0),
            evidence=[
                Evidence("value", {odd: odd}, odd), Evidence("file", name="reproduction", file=odd),
                Evidence("batch", {odd: {"shape": [2], "dtype": odd, "values": [1.0, 2.0]}}, "before"),
                Evidence("batch", {odd: {"shape": [2], "dtype": odd, "values": [1.0, 3.0]}}, "after"),
            ],
        ),
        Finding("pad-leak-value", Status.PASS, Role.NOTE, odd),
        Finding("future-leak", Status.NOT_RUN, Role.NOTE, odd),
    )  # fmt: skip
    return base.with_(
        name=odd,
        findings=findings,
        metrics={**base.metrics, odd: 1.0, f"val/{odd}": 2.0},
        series={**base.series, f"loss/{odd}": base.series["loss"], f"grad_norm/{odd}/kernel": base.series["loss"]},
        verdict=Verdict("FAIL", (odd,)),
        figures={
            **base.figures,
            "confusion": {"classes": [odd, "b"], "counts": [[1, 2], [0, 4]]},
            "courses": [{"name": odd, "sample": 0, "rmse": 1.0, "true": [0.0, 1.0], "predicted": [1.0, 0.0]}],
            "snapshots": [{**shot(1), "idle": {odd: 0.5}, "classes": [odd, odd, odd], "edges": None}],
            "snapshots_note": odd,
            "distributions": {odd: {"edges": [0.0, 1.0], "counts": [3], "mean": 0.5, "std": 0.1}},
            "missing": {"rows": [0, 1], "share": {odd: [0.5]}},
            "tests": [{"test": odd, "outcome": "failed", "seconds": 1.0, "words": odd}],
            "expectations": [{"status": "FAIL", "expectation": odd, "column": odd, "message": odd}],
            "repairs": [odd],
        },
        plan={odd: odd, "forecast": {odd: 1.0, "duration_min": odd}},
        timeline=(Moment(0.0, odd, odd, 1),),
        provenance=Provenance(command=odd, config={odd: odd}, versions={odd: odd}, host={odd: odd}),
    )


def large_report(steps=5000, parameters=200, findings=100):
    """Thousands of steps, hundreds of parameters and a hundred findings with proofs and counterexamples."""
    base = train_report(steps=steps, epochs=50)
    x = tuple(range(0, steps, 10))
    return base.with_(
        findings=tuple(
            catalogue.finding(
                "lr-too-high", f"finding {n}", where={"layer": f"layer_{n}", "step": n},
                proof=proof(300) if n % 4 else None,
                evidence=[Evidence("value", {f"fact {k}": k * 1.5 for k in range(60)}, "facts")],
            )
            for n in range(findings)
        )
        + tuple(counterexample(feature=str(n)) for n in range(10)),
        series={
            **base.series,
            **{
                f"grad_norm/block_{k}/dense/kernel": Series([1e-3 * (1 + (n * k) % 17) for n in x], x)
                for k in range(parameters)
            },
        },
        figures={
            **base.figures,
            "predicted_true": {"true": [n / 50 for n in range(400)], "predicted": [n / 55 for n in range(400)]},
            "distributions": {f"column {n}": audit_report().figures["distributions"]["load"] for n in range(20)},
        },
    )  # fmt: skip


KINDS = {
    "empty": Report,
    "check": check_report,
    "train": train_report,
    "audit": audit_report,
    "suite": suite_report,
    "hostile": hostile_report,
}
