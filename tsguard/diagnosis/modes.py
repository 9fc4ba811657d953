"""The same weights in the two modes: what is known while they are trained, and not when they are asked."""

from __future__ import annotations

from tsguard import catalogue
from tsguard.diagnosis.doubt import GAINED
from tsguard.diagnosis.record import Record
from tsguard.diagnosis.seen import Seen
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.score import judge
from tsguard.probes.stage import Snapshot


def known_in_training_alone(record: Record, seen: Seen) -> Finding | None:
    """The rows of the run answered in training mode, where far more of them is known than in inference."""
    if seen.judged is None or seen.sample is None or record.data.batch_size < 2:
        return None
    end = Snapshot(record.model)
    trained = judge(record.model, seen.sample, training=True)
    end.restore()
    asked = seen.judged.skill
    if trained is None or trained.kind != seen.judged.kind or trained.skill < asked + GAINED:
        return None
    return catalogue.finding(
        "train-eval-gap",
        f"the same weights explain {trained.skill:.0%} of the targets of the same rows in training mode and "
        f"{asked:.0%} in inference: what was learned is not what is asked. Look at what a layer does only where "
        "`training` is true (statistics of the batch, scaling, noise) and at moving statistics that have not arrived.",
        where={"phase": "forward"},
        status="FAIL",
        role="cause",
        explains=tuple(one.code for one in seen.symptoms),
        evidence=(Evidence("value", {"training": trained.skill, "inference": asked}, name="explained share"),),
        score=1.0,
    )
