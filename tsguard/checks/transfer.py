"""What was frozen, or was to be transferred: does it hold anything that was ever learned?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tsguard import catalogue
from tsguard.checks.bench import Bench, name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.probes.initial import kernels_of, looks_initial


@check("frozen at random", codes=("disconnected-parameters",), needs=("model", "data"), cost=2)
def frozen_at_random(context: Context) -> Iterable[Finding]:
    """Layers that were made to be trained, then frozen, and hold what their initialisers drew."""
    bench = set_up(context)
    if bench.step.error is not None or not bench.model.trainable_variables:
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
    elif _first_to_read(kernels, fresh):
        names = list(dict.fromkeys(name_of(layer) for layer, _ in fresh))
        size = sum(int(v.value.numel()) for _, v in fresh)
        yield catalogue.finding(
            "disconnected-parameters",
            f"{', '.join(names[:4])}: frozen at random initial values ({size} weights; nothing was loaded into them), "
            "and all that the trained layers see has gone through them. Load weights first, or set `trainable = True` "
            "and compile again.",
            where={"layer": names[0], "parameter": fresh[0][1].path},
            # Random features may be meant; whether they cost anything is for an experiment to say.
            status="WARN",
            score=0.8,
        )


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
        evidence=(Evidence("value", [v.path for v in misfits], name="weights without a counterpart"),),
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
