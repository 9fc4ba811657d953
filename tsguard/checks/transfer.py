"""What was frozen, or was to be transferred: does it hold anything that was ever learned?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of, not_asked, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import Data
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.initial import kernels_of, looks_initial
from tsguard.probes.learnable import counted, curved_columns, ridge_r2, table
from tsguard.probes.score import sample
from tsguard.probes.stage import flat

LEARNABLE = 0.15
"""Share of the targets that a closed-form fit of the inputs explains, from which something can be lost on the way."""

LOST = 0.5
"""… and the part of it that must be lost behind the frozen layers."""


@check("a table that tells nothing", codes=("transfer-nothing",), needs=("model",), cost=0)
def table_that_tells_nothing(context: Context) -> Iterable[Finding]:
    """A frozen table of vectors whose rows are all the same: nothing was found to fill it with."""
    import keras

    for layer in context.model._flatten_layers(include_self=False, recursive=True):
        kept = getattr(layer, "_embeddings", None) if isinstance(layer, keras.layers.Embedding) else None
        if kept is None or kept.trainable or int(kept.shape[0]) < 2:
            continue
        rows = kept.value.detach()
        if bool((rows != rows[:1]).any()):
            continue
        yield catalogue.finding(
            "transfer-nothing",
            f"the table of layer {name_of(layer)} is frozen, and all its {len(rows):,} rows are the same "
            f"({float(rows[0, 0]):g} …): whatever is looked up in it, the layers behind see one vector. Expected "
            "vectors that were loaded: look at how words are spelled on both sides, and how many were found.",
            where={"layer": name_of(layer), "parameter": kept.path},
            status="FAIL",
            role="cause",
            explains=("dead-units", "no-learning", "class-collapse"),
            score=1.0,
        )


@check("frozen at random", codes=("disconnected-parameters",), needs=("model", "data"), cost=2)
def frozen_at_random(context: Context) -> Iterable[Finding]:
    """Layers that were made to be trained, then frozen, and hold what their initialisers drew."""
    bench = set_up(context)
    if bench.step.error is not None:
        yield from not_asked(bench, "disconnected-parameters")
        return
    if not bench.model.trainable_variables:
        return
    kernels = [(layer, v) for layer in _in_order(bench) for v in kernels_of(layer)]
    frozen = [(layer, v) for layer, v in kernels if not v.trainable]
    fresh = [(layer, v) for layer, v in frozen if looks_initial(layer, v)]
    if not fresh:
        return
    if len(fresh) == len(kernels):
        left = sum(int(v.value.numel()) for v in bench.model.trainable_variables)
        yield catalogue.finding(
            "disconnected-parameters",
            f"all {len(kernels)} kernels are frozen, and at random initial values (nothing was loaded into them); what "
            f"can train are {left} offsets and scales, which cannot change how answers depend on inputs. Set "
            "`trainable = True` and compile again, or load weights first.",
            where={"layer": name_of(fresh[0][0]), "parameter": fresh[0][1].path},
            score=0.9,
        )
        return
    shares = _what_passes(bench, fresh) if _first_to_read(kernels, fresh) else None
    if shares is None or shares[1] <= LEARNABLE or shares[0] >= LOST * shares[1]:
        return  # random features that hold what the targets depend on are a method, and no fault
    names = list(dict.fromkeys(name_of(layer) for layer, _ in fresh))
    size = sum(int(v.value.numel()) for _, v in fresh)
    yield catalogue.finding(
        "disconnected-parameters",
        f"{', '.join(names[:4])}: frozen at random initial values ({size} weights; nothing was loaded into them). All "
        f"that the trained layers see goes through them, and a closed-form fit of what comes out explains "
        f"{max(0.0, shares[0]):.0%} of the targets of rows held back, of what goes in {shares[1]:.0%}. Load weights "
        "first, or set `trainable = True` and compile again.",
        where={"layer": names[0], "parameter": fresh[0][1].path},
        evidence=(Evidence("value", {"behind": shares[0], "before": shares[1]}, name="R² on rows held back"),),
        # What a deep head makes of it is for an experiment to say.
        status="WARN",
        score=0.8,
    )


def _what_passes(bench: Bench, fresh: list[tuple[Any, Any]]) -> tuple[float, float] | None:
    """R² of closed-form fits: of what the first trained layer is given, and of the inputs."""
    import numpy as np

    rows = sample(bench.data)
    made = None if rows is None or rows.y is None else table(Data(rows.x, rows.y))
    if rows is None or made is None:
        return None
    raw, y = made
    step = bench.again(rows)
    bench.start.restore()
    frozen = {id(layer) for layer, _ in fresh}
    trained = [
        one
        for one in sorted(step.calls, key=lambda one: one.first_node)
        if one.layer._trainable_variables and id(one.layer) not in frozen and one.layer.trainable_variables
    ]
    given = next((t for one in trained for t in flat(one.inputs) if t.ndim >= 2 and len(t) == len(y)), None)
    if given is None:
        return None
    seen = given.detach().double().cpu().numpy().reshape(len(y), -1)

    def fit(x: Any) -> float:
        x = x[:, :: x.shape[1] // 500 + 1]
        return max(ridge_r2(x, y), ridge_r2(np.concatenate([x, curved_columns(x)], axis=1), y))

    if not np.isfinite(seen).all():
        return None
    words = [np.asarray(leaf.cpu()) for leaf in flat(rows.x) if not leaf.is_floating_point() and leaf.ndim == 2]
    words = [counted(ids) for ids in words if _looked_up(bench)]  # the number of a word says nothing
    return fit(seen), max(map(fit, (raw, *(one for one in words if one.shape[1]))))


def _looked_up(bench: Bench) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.Embedding) for layer in bench.model._flatten_layers())


def _in_order(bench: Bench) -> list[Any]:
    """The layers that own weights, in the order in which the forward pass comes to them; cells with their layer."""
    called = [one.layer for one in sorted(bench.step.calls, key=lambda one: one.first_node)]
    found: dict[int, Any] = {}
    for layer in (*(one for one in called if one is not bench.model), *bench.model._flatten_layers()):
        for inner in layer._flatten_layers(include_self=True, recursive=True):
            found.setdefault(id(inner), inner)
    return list(found.values())


def _first_to_read(kernels: list[tuple[Any, Any]], fresh: list[tuple[Any, Any]]) -> bool:
    """Whether the first kernel of the forward pass is among them, and was made to be trained.

    A frozen part behind trained ones is what a generator is trained against; a weight that was made without training
    (`add_weight(trainable=False)`) is a random projection that somebody wrote down as one.
    """
    layer, first = kernels[0]
    made_to_train = any(v is first for v in layer._trainable_variables)
    return made_to_train and any(v is first for _, v in fresh)


SHAPES_OF_SOURCE = "shapes of the source"
"""Evidence of a transfer that found no place: what the source has to give."""


@check("transfer that was declared", codes=("transfer-nothing",), needs=("model", "data", "declared"), cost=2)
def declared_transfer(context: Context) -> Iterable[Finding]:
    """`transferred_from` (a model, or a list of arrays) against the model, or against its layer `transferred_into`."""
    given = context.declared.get("transferred_from")
    if given is None:
        return
    bench = set_up(context)
    into = context.declared.get("transferred_into")
    part = bench.model if into is None else bench.model.get_layer(str(into))
    wanted = [v for v in part.variables if v.value.is_floating_point() and v.value.ndim >= 1]
    arrived = [v for v in wanted if _among(v, _arrays(given))]
    kernels = [v for v in wanted if v.value.ndim >= 2]
    if not wanted or any(v is k for v in arrived for k in kernels):
        return
    yield from _nothing_arrived(wanted, _arrays(given), str(into or bench.model.name))


def _nothing_arrived(wanted: list[Any], given: list[Any], place: str) -> Iterator[Finding]:
    shapes = {tuple(int(n) for n in one.shape) for one in given}
    misfits = [v for v in wanted if tuple(int(n) for n in v.shape) not in shapes]
    fits = (
        f"for {len(misfits)} of them the source has no weight of that shape (first: {misfits[0].path}, "
        f"{tuple(misfits[0].shape)}; the source holds {sorted(shapes)[:6]})"
        if misfits
        else "the shapes agree, so nothing was copied at all"
    )
    yield catalogue.finding(
        "transfer-nothing",
        f"none of the {len(wanted)} weights of {place} equals a weight of what they were to be transferred from: "
        f"{fits}. Make layer counts and widths equal, or name what goes where.",
        where={"layer": place, "parameter": wanted[0].path},
        evidence=(
            Evidence("value", [v.path for v in misfits], name="weights without a counterpart"),
            Evidence("value", [list(shape) for shape in sorted(shapes)], name=SHAPES_OF_SOURCE),
        ),
        score=1.0,
    )


def _arrays(given: Any) -> list[Any]:
    import numpy as np

    listed = given.get_weights() if hasattr(given, "get_weights") else list(given)
    return [np.asarray(one) for one in listed]


def _among(variable: Any, arrays: list[Any]) -> bool:
    """Whether a weight is one of these, to the bit, and more than a constant."""
    import numpy as np

    value = variable.value.detach().cpu().numpy()
    constant = value.size > 0 and bool((value == value.reshape(-1)[0]).all())
    return not constant and any(one.shape == value.shape and np.array_equal(one, value) for one in arrays)
