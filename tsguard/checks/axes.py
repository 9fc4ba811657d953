"""What a first convolution takes for rows, steps and channels, against what the shapes look like."""

from __future__ import annotations

from collections.abc import Iterable

from tsguard import catalogue
from tsguard.checks.bench import name_of, set_up
from tsguard.checks.registry import Context, check
from tsguard.findings import Finding
from tsguard.probes.stage import flat

COLOURS = (1, 3, 4)
"""Channels of a picture: grey, RGB, RGB with opacity."""

SMALLEST_PICTURE = 8
"""Side below which a map of features may well be as small as that."""


@check("pictures with channels where rows belong", codes=("input-encoding",), needs=("model", "data"), cost=2)
def channels_elsewhere(context: Context) -> Iterable[Finding]:
    """Raw input of a two-dimensional convolution whose channel axis is a side of a square, and a side is 1, 3 or 4."""
    import keras

    bench = set_up(context)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    raw = {tuple(leaf.shape) for leaf in flat(bench.batch.x) if leaf.ndim == 4}
    for call in sorted(bench.step.calls, key=lambda one: one.first_node):
        given = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if not isinstance(call.layer, kinds) or given is None or tuple(given.shape) not in raw:
            continue
        first = call.layer.data_format == "channels_first"
        _, a, b, c = (int(size) for size in given.shape)
        rows, columns, channels = (b, c, a) if first else (a, b, c)
        side, other = (columns, rows) if first else (rows, columns)
        if side in COLOURS and other == channels >= SMALLEST_PICTURE:
            yield catalogue.finding(
                "input-encoding",
                f"{name_of(call.layer)} reads its input of shape {tuple(given.shape)} as {rows} × {columns} "
                f"with {channels} channels ({call.layer.data_format}). It looks like {other} × {channels} with "
                f"{side} channel(s): transpose them, or give the layer the other data_format.",
                where={"layer": name_of(call.layer)},
                score=0.9,
            )
        return


@check("kernel longer than its axis", codes=("input-encoding",), needs=("model", "data"), cost=2)
def kernel_longer_than_time(context: Context) -> Iterable[Finding]:
    """A convolution over raw windows whose kernel is longer than the axis that it runs along, beside a longer one.

    Most of such a kernel only ever meets padding, and every step is a whole window: what looks like channels is time.
    """
    import keras

    bench = set_up(context)
    kinds = (keras.layers.Conv1D, keras.layers.SeparableConv1D, keras.layers.DepthwiseConv1D)
    raw = {tuple(leaf.shape) for leaf in flat(bench.batch.x) if leaf.ndim == 3 and leaf.is_floating_point()}
    for call in sorted(bench.step.calls, key=lambda one: one.first_node):
        given = next((t for t in flat(call.inputs) if hasattr(t, "shape")), None)
        if not isinstance(call.layer, kinds) or given is None or tuple(given.shape) not in raw:
            continue
        first = call.layer.data_format == "channels_first"
        steps, channels = (int(given.shape[axis]) for axis in ((2, 1) if first else (1, 2)))
        kernel = int(call.layer.kernel_size[0])
        if steps < kernel <= channels and call.layer.padding != "valid":
            yield catalogue.finding(
                "input-encoding",
                f"{name_of(call.layer)} reads its input of shape {tuple(given.shape)} as {steps} steps of {channels} "
                f"channels, and its kernel is {kernel} steps long: it reaches over the whole axis and runs along "
                f"nothing. It looks like {channels} steps of {steps} channels with the two axes swapped.",
                where={"layer": name_of(call.layer)},
                status="WARN",
                role="cause",
                remedy="Transpose it: x.transpose(0, 2, 1).",
                score=0.9,
            )
        return
