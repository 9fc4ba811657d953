"""Findings made of what the guard saw: the words, the place, the role."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Any

from tsguard import catalogue
from tsguard.evidence import Evidence
from tsguard.findings import Finding, Role, Status
from tsguard.guard.investigate import Verdict
from tsguard.guard.outcome import Origin, Trip
from tsguard.guard.stall import Stall

RUNAWAY = 100.0
"""Weights that grew a hundredfold within one window had run away before anything broke: then an overflow is only
where it showed."""

CAUSES = ("data-nonfinite", "pad-nan-poison", "loss-empty-selection", "precision-overflow", "nan-hidden")


def of_origin(
    origin: Origin, trip: Trip, verdict: Verdict, *, status: Status = Status.FAIL, cost: str = "", when: str = ""
) -> Finding:
    """The answer to a trip whose origin is known. `when` says in words when it was, where that was not a step."""
    record = verdict.record
    where = {
        "layer": origin.layer,
        "op": origin.op,
        "phase": origin.phase,
        "step": origin.step,
        "epoch": record.epoch if record is not None else trip.epoch,
        "batch": record.batch if record is not None else trip.batch,
        "loss_term": origin.loss_term,
        "file": origin.file,
        "line": origin.line,
        "parameter": origin.parameter,
        "input": origin.input,
        "output": origin.output,
    }
    if origin.element is not None and origin.phase != "update":
        element = origin.element
        where |= {
            "sample": element.sample,
            "timestep": element.timestep,
            "feature": element.feature,
            "row": element.row,
            "id": element.id,
        }
    return catalogue.finding(
        origin.code,
        _message(origin, verdict, when or f"at step {origin.step}, phase {origin.phase}")
        + (f" {cost}" if cost else ""),
        where=where,
        status=status,
        role=role_of(origin, verdict),
        evidence=[*origin.evidence, *_circumstances(verdict)],
        check="guard",
        score=1.0,
    )


def role_of(origin: Origin, verdict: Verdict) -> Role:
    """Cause where the user's own operation did it and nothing deeper is proven; an overflow of weights that ran away
    is not."""
    if origin.code in CAUSES:
        return Role.CAUSE
    if verdict.weight_growth is not None and verdict.weight_growth > RUNAWAY:
        return Role.SYMPTOM
    if origin.own:
        return Role.CAUSE
    # Inside a layer of Keras a value left the range because something drove it there; a pole (0/0, log of 0) is
    # where the layer itself breaks.
    return Role.CAUSE if origin.kind in ("singularity", "empty") and origin.phase != "update" else Role.SYMPTOM


def moved(finding: Finding, where: dict[str, Any]) -> Finding:
    """The same finding at another place; what is None is left out."""
    return dataclasses.replace(finding, where={key: value for key, value in where.items() if value is not None})


def _message(origin: Origin, verdict: Verdict, when: str) -> str:
    place = f" in layer `{origin.layer}`" if origin.layer else ""
    place += f", loss term `{origin.loss_term}`" if origin.loss_term else ""
    place += f", parameter `{origin.parameter}`" if origin.parameter else ""
    line = f" ({origin.file}:{origin.line})" if origin.file else ""
    subject = (
        f"`{origin.op}`" if origin.op else {"data": "The batch", "update": "The update"}.get(origin.phase, "The step")
    )
    text = f"{subject}{place}{line} made the first value that is not finite {when}: "
    if origin.phase == "data":
        text = f"Step {origin.step} got a batch that is not finite: "
    text += origin.mechanism + "."
    element = origin.element
    if element is not None and origin.phase in ("forward", "loss", "backward"):
        named = [("sample", element.sample), ("timestep", element.timestep), ("feature", element.feature)]
        parts = [f"{name} {value}" for name, value in named if value is not None]
        if element.row is not None:
            known = f" (id {element.id})" if element.id is not None else ""
            parts.append(f"row {element.row} of the data set{known}")
        if parts:
            text += f" First element: {', '.join(parts)} ({element.count} in all)."
    if origin.others:
        text += f" Further on the same path: {', '.join(origin.others)}."
    if verdict.binding:
        text += {
            "transient": " Replayed, it does not come again: the fault is transient.",
            "persistent": " It comes again with another batch too: it sits in the state of the model.",
            "data-bound": " It comes again with this batch and not with another: it hangs on the data.",
        }[verdict.binding]
    return text


def _circumstances(verdict: Verdict) -> list[Evidence]:
    found = []
    if verdict.weight_growth is not None:
        found.append(Evidence("value", verdict.weight_growth, name="weight norm before the bad step / clean state"))
    if verdict.binding is not None:
        found.append(Evidence("value", verdict.binding, name="binding"))
    losses = [step.loss for step in verdict.replayed if step.loss is not None][-8:]
    if losses:
        found.append(Evidence("value", losses, name="losses before the bad step"))
    return found


PHASE_CODES = {
    "forward": "nonfinite-forward",
    "loss": "nonfinite-loss",
    "backward": "nonfinite-backward",
    "update": "nonfinite-update",
}


def of_trip(trip: Trip, verdict: Verdict | None = None, *, status: Status | None = None, cost: str = "") -> Finding:
    """The answer to a trip whose origin was not found, or that has none (a rise, a clip, skipped steps)."""
    code = trip.code
    text = trip.message + (f" {cost}" if cost else "")
    if verdict is not None and verdict.gone_in_eager:
        text += (
            " Run eagerly, the same step is finite: the fault comes from the compiled step (jit_compile=True) itself."
        )
    where: dict[str, Any] = {"step": trip.step, "epoch": trip.epoch, "batch": trip.batch, "phase": trip.phase}
    where |= {key: value for key, value in trip.facts.items() if key in ("parameter", "loss_term")}
    evidence = [Evidence("value", value, name=name, step=trip.step) for name, value in trip.facts.items()]
    return catalogue.finding(code, text, where=where, status=status, evidence=evidence, check="guard")


def diverged(step: int, trip: Trip) -> Finding:
    """A replay that was not the run."""
    return catalogue.finding(
        "nondeterministic",
        f"Replaying the recorded steps gave another loss at step {step} than the run itself: something outside "
        f"weights, "
        "optimizer, seed generators and random generators decides what a step does (a counter in a closure, a clock, a "
        "kernel that is not deterministic). What the replay shows may not be what happened.",
        where={"step": step},
        status=Status.WARN,
        role=Role.NOTE,
        check="guard",
        evidence=[Evidence("value", trip.code, name="trip")],
    )


def crash(error: BaseException, doing: str) -> Finding:
    """Our own mistake. Training is not touched by it, but the run is not watched any more."""
    text = "".join(traceback.format_exception(error))
    return Finding(
        "nonfinite-loss",  # the first question that went unanswered
        Status.ERROR,
        Role.NOTE,
        f"The guard itself failed while {doing} ({type(error).__name__}: {error}). Training went on unwatched "
        f"from there.",
        evidence=(Evidence("traceback", text, name=type(error).__name__),),
        remedy="Send the traceback to the maintainers; `tsguard doctor` shows the versions to add.",
        check="guard",
    )


def inspected(step: int, trace: Any, origin: Origin | None) -> Finding:
    """What one step looked like from inside, asked for with `inspect=[step]`."""
    nearest = sorted(trace.margins or (), key=lambda margin: margin.distance)[:5]
    words = (
        "; ".join(f"`{m.op}`{f' in {m.layer}' if m.layer else ''}: {m.what} {m.value:.4g}" for m in nearest)
        or "no operation with an edge"
    )
    if origin is not None:
        text = f"Step {step}, inspected: {origin.mechanism}. Nearest to an edge: {words}."
        return catalogue.finding(
            origin.code, text, where={"step": step, "layer": origin.layer, "op": origin.op}, check="guard"
        )
    first = nearest[0] if nearest else None
    return catalogue.finding(
        "nonfinite-forward",
        f"Step {step}, inspected: {trace.count} operations ran and nothing that is not finite reached loss, "
        f"gradients or "
        f"weights. Nearest to an edge: {words}.",
        where={"step": step, "layer": first.layer if first else None, "op": first.op if first else None},
        status=Status.PASS,
        role=Role.NOTE,
        check="guard inspection",
        evidence=[
            Evidence("value", m.value, name=f"{m.op} {m.layer or ''} {m.what}".strip(), step=step) for m in nearest
        ],
    )


def stalled(stall: Stall) -> Finding:
    """Nothing happened for long."""
    return catalogue.finding(
        "stalled",
        f"Nothing happened for {stall.seconds:.0f} s at step {stall.step}: waited for {stall.where}.",
        where={"step": stall.step},
        evidence=[Evidence("traceback", stall.stack, name="where the training thread stood", step=stall.step)],
        check="guard",
    )


def interrupted(step: int, epoch: int, reason: str) -> Finding:
    """The process ended before the run did."""
    return catalogue.finding(
        "interrupted",
        f"Training ended after step {step}, in epoch {epoch}: {reason}. This report holds what was known then.",
        where={"step": step, "epoch": epoch},
        check="guard",
    )


def stood_aside() -> Finding:
    """Two guards in one fit: this one did not watch."""
    return catalogue.finding(
        "nonfinite-loss",
        "This guard stood aside: another one, further on in the list of callbacks, watches the same "
        "fit. Its report holds what was seen.",
        status=Status.NOT_RUN,
        role=Role.NOTE,
        remedy="Give fit one Guard; `tsguard.fit` brings its own.",
        check="guard",
    )
