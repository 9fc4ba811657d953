"""Terms of a loss held against each other by the gradients they send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tsguard import catalogue
from tsguard.checks.bench import Bench, not_asked, set_up
from tsguard.checks.own_loss import generator_of
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.answers import draw_weights
from tsguard.probes.gradients import Term, term_gradients

DROWNED = 1000.0
"""Ratio of gradient norms in shared weights from which the smaller term cannot be told from rounding of the larger
one's noise: float32 batches of 32 have a gradient noise of about 1/√32 of the norm, hundreds of times that is
nothing."""


LOUD = 100.0
"""Gradient norm far beyond the order of one that usual rates and clip thresholds are made for."""


@check("loss term that drowns the others", codes=("loss-term-dominates",), needs=("model", "data"), cost=3)
def drowned_terms(context: Context) -> Iterable[Finding]:
    """Gradient norms that each loss term sends into the weights that it shares with another."""
    bench = set_up(context)
    if bench.step.error is not None or bench.step.answer is None:
        yield from not_asked(bench, "loss-term-dominates")
        return
    norms = []
    for measured in _measurements(bench):
        if len(measured) < 2 or max(term.norm for term in measured.values()) <= LOUD:
            return  # one term, or none that is loud: the least of all measurements is asked below
        norms.append(measured)
    if len({tuple(n) for n in norms}) > 1:
        return
    typical = {name: min(n[name].norm for n in norms) for name in norms[0]}
    tasks = {name for name, term in norms[0].items() if term.task}
    loudest = max(typical, key=lambda name: typical[name])
    drowned = sorted(name for name in tasks if name != loudest and 0 < typical[name] * DROWNED < typical[loudest])
    # A small term beside one of ordinary size may be small by nature; what drowns is loud by itself.
    if drowned and typical[loudest] > LOUD:
        table = {name: round(value, 9) for name, value in typical.items()}
        yield catalogue.finding(
            "loss-term-dominates",
            f"loss term {loudest!r} sends a gradient of norm {typical[loudest]:.3g} into the shared weights, and "
            f"{', '.join(f'{n!r} one of {typical[n]:.3g}' for n in drowned)}: less than a thousandth. Expected "
            f"terms of one "
            "order; scale the targets, or weigh the terms (loss_weights).",
            where={"loss_term": loudest},
            evidence=(Evidence("value", table, name="gradient norm per term"),),
            score=1.0,
        )


def _measurements(bench: Bench) -> Iterator[dict[str, Term]]:
    """The terms on two batches, and at other weights: some are silent at the very start and speak later."""
    for batch in bench.batches[:2]:
        yield term_gradients(bench.model, batch, restore=bench.start.restore)
    for seed in (1, 2):

        def redraw(seed: int = seed) -> None:
            bench.start.restore()
            draw_weights(bench.model, 1.0, generator_of(seed))

        yield term_gradients(bench.model, bench.batch, restore=redraw)
