"""What goes into tables of embeddings."""

from __future__ import annotations

from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.dataset import leaves
from tsguard.findings import Finding
from tsguard.probes.stage import flat


@check("ids that the table cannot hold", codes=("input-encoding",), needs=("model", "data"), cost=2)
def ids_and_tables(context: Context) -> Iterable[Finding]:
    """What goes into embeddings: whole numbers below the number of rows, and not nearly all the same row."""
    import keras
    import torch

    assert context.data is not None
    if context.data.is_arrays:
        return  # the data checks read arrays as a whole
    bench = set_up(context)
    for call in bench.step.calls:
        # A ReversibleEmbedding called with reverse=True takes states to scores: its input holds no ids.
        if not isinstance(call.layer, keras.layers.Embedding) or call.kwargs.get("reverse"):
            continue
        ids = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if ids is None or ids.numel() == 0:
            continue
        value, rows, name = ids.detach().double(), int(call.layer.input_dim), name_of(call.layer)
        broken = float((value != value.round()).double().mean())
        low, high = float(value.min()), float(value.max())
        if broken > 0:
            used = int(value.long().unique().numel())
            said = (
                f"{broken:.0%} of the values are not whole numbers; the table cuts them off and {used} row(s) are used"
            )
        elif low < 0 or high >= rows:
            said = f"ids run from {low:g} to {high:g}, and the table has the rows 0 … {rows - 1}"
        else:
            raw = [leaf for leaf in leaves(bench.batch.x) if torch.is_tensor(leaf) and leaf.shape == ids.shape]
            pressed = float((value == rows - 1).double().mean())
            if not raw or pressed < 0.5 or int(raw[0].unique().numel()) <= rows:
                continue
            said = (
                f"the input holds {int(raw[0].unique().numel())} different ids, and the table has {rows} rows: "
                f"{pressed:.0%} of "
                "them land on the last one"
            )
        yield catalogue.finding(
            "input-encoding",
            f"embedding {name}: {said}. Expected whole numbers below `input_dim`, counted over the whole vocabulary "
            f"with the "
            "padding id.",
            where={"layer": name},
            score=1.0,
        )
        return
