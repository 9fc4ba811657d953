"""How the axes of a tensor travel: each operation says how those of its outputs follow from those of its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tsguard.guard.axes import SAMPLE, TIMESTEP, AnyAxis, Axis, Merged, Tag


def follow(name: str, args: Sequence[Any], inputs: list[tuple[Any, Tag]], outputs: list[Any]) -> list[Tag]:
    """The tags of an operation's outputs. `inputs` are its tensors with their tags, in order."""
    if not inputs or not any(tag.known for _, tag in inputs):
        return [Tag((None,) * len(out.shape)) for out in outputs]
    rule = _RULES.get(name)
    try:
        if rule is not None:
            tags = rule(args, inputs, outputs)
        else:
            tags = [_alike(inputs, out) for out in outputs]
    except (IndexError, ValueError, TypeError, KeyError):  # an overload that the rule does not know
        tags = [_alike(inputs, out) for out in outputs]
    # Where a mask or an index came from says nothing about what it picked.
    fixed = _fixed(inputs[:1] if name == "index" else inputs)
    return [
        Tag(tag.axes + (None,) * (len(out.shape) - len(tag.axes)), _free(_merge(fixed, tag.fixed), tag.axes))
        for tag, out in zip(tags, outputs, strict=True)
    ]


def _free(fixed: tuple[tuple[str, int], ...], axes: tuple[AnyAxis, ...]) -> tuple[tuple[str, int], ...]:
    """A coordinate that has become an axis again (the steps of a cell, stacked) is no longer fixed."""
    if not fixed:
        return fixed
    kinds = {axis.kind for axis in axes if isinstance(axis, Axis)}
    return tuple((kind, value) for kind, value in fixed if kind not in kinds)


def _fixed(inputs: list[tuple[Any, Tag]]) -> tuple[tuple[str, int], ...]:
    """Where two timesteps meet (state and input of a cell), the later one is where we are."""
    found: tuple[tuple[str, int], ...] = ()
    for _, tag in inputs:
        found = _merge(found, tag.fixed)
    return found


def _merge(left: tuple[tuple[str, int], ...], right: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    if not right or left == right:
        return left
    found = dict(left)
    for kind, value in right:
        found[kind] = max(value, found.get(kind, value))
    return tuple(sorted(found.items()))


def _alike(inputs: list[tuple[Any, Tag]], out: Any) -> Tag:
    """Element-wise with broadcasting: axes align from the right, and the first one that is known counts."""
    shape = tuple(out.shape)
    axes: list[AnyAxis] = [None] * len(shape)
    for tensor, tag in inputs:
        offset = len(shape) - len(tensor.shape)
        if offset < 0:
            continue
        for position, axis in enumerate(tag.axes):
            at = position + offset
            if axis is not None and axes[at] is None and tensor.shape[position] == shape[at] and axis not in axes:
                axes[at] = axis
    return Tag(tuple(axes))


def _first(inputs: list[tuple[Any, Tag]]) -> tuple[Any, Tag]:
    return inputs[0]


def _axes(inputs: list[tuple[Any, Tag]], which: int = 0) -> list[AnyAxis]:
    tensor, tag = inputs[which]
    return list(tag.axes) + [None] * (len(tensor.shape) - len(tag.axes))


def _view(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    source, _ = _first(inputs)
    return [Tag(_reshaped(tuple(source.shape), _axes(inputs), tuple(outputs[0].shape)))]


def _reshaped(old: tuple[int, ...], axes: list[AnyAxis], new: tuple[int, ...]) -> tuple[AnyAxis, ...]:
    """Group axes of old and new shape whose sizes multiply to the same number; a group of one keeps its meaning."""
    result: list[AnyAxis] = [None] * len(new)
    i = j = 0
    while i < len(old) and j < len(new):
        first_i, first_j = i, j
        left, right = old[i], new[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(old):
                left *= old[i]
                i += 1
            elif right < left and j < len(new):
                right *= new[j]
                j += 1
            else:
                return tuple(result)
        group_old = [k for k in range(first_i, i) if old[k] != 1] or [first_i]
        group_new = [k for k in range(first_j, j) if new[k] != 1] or [first_j]
        if len(group_old) == 1 and len(group_new) == 1:
            result[group_new[0]] = axes[group_old[0]]
        elif len(group_new) == 1:
            result[group_new[0]] = _joined([(axes[k], old[k]) for k in group_old])
        elif len(group_old) == 1:
            merged = axes[group_old[0]]
            if isinstance(merged, Merged) and [size for _, size in merged.parts] == [new[k] for k in group_new]:
                for k, (part, _) in zip(group_new, merged.parts, strict=True):
                    result[k] = part
    return tuple(result)


def _joined(parts: list[tuple[AnyAxis, int]]) -> AnyAxis:
    flat: list[tuple[Axis | None, int]] = []
    for axis, size in parts:
        if isinstance(axis, Merged):
            flat += list(axis.parts)
        else:
            flat.append((axis, size))
    return Merged(tuple(flat)) if any(axis is not None for axis, _ in flat) else None


def _permute(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    return [Tag(tuple(axes[d] for d in args[1]))]


def _transpose(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    a, b = (args[1], args[2]) if len(args) > 2 else (0, 1)
    if len(axes) > 1:
        axes[a], axes[b] = axes[b], axes[a]
    return [Tag(tuple(axes))]


def _unsqueeze(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    axes.insert(args[1] % (len(axes) + 1), None)
    return [Tag(tuple(axes))]


def _select(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    tensor, _ = _first(inputs)
    axes = _axes(inputs)
    dim = args[1] % len(axes)
    return [_taken(axes, dim, int(args[2]) % tensor.shape[dim])]


def _taken(axes: list[AnyAxis], dim: int, index: int) -> Tag:
    axis = axes[dim]
    fixed = ((axis.kind, axis.start + axis.step * index),) if isinstance(axis, Axis) else ()
    return Tag(tuple(axes[:dim] + axes[dim + 1 :]), fixed)


def _unbind(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    dim = (args[1] if len(args) > 1 else 0) % len(axes)
    return [_taken(axes, dim, index) for index in range(len(outputs))]


def _slice(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    tensor, _ = _first(inputs)
    axes = _axes(inputs)
    dim = (args[1] if len(args) > 1 else 0) % len(axes)
    start = (args[2] if len(args) > 2 else None) or 0
    step = args[4] if len(args) > 4 else 1
    start = max(start + tensor.shape[dim], 0) if start < 0 else start
    axis = axes[dim]
    if isinstance(axis, Axis):
        axes[dim] = replace(axis, start=axis.start + axis.step * start, step=axis.step * step)
    elif tensor.shape[dim] != outputs[0].shape[dim]:
        axes[dim] = None
    return [Tag(tuple(axes))]


def _split(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    dim = args[2] if len(args) > 2 else 0
    tags, start = [], 0
    for out in outputs:
        axes = _axes(inputs)
        at = dim % len(axes)
        axis = axes[at]
        axes[at] = replace(axis, start=axis.start + axis.step * start) if isinstance(axis, Axis) else None
        start += out.shape[at]
        tags.append(Tag(tuple(axes)))
    return tags


def _flip(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    tensor, _ = _first(inputs)
    axes = _axes(inputs)
    for dim in args[1]:
        axis = axes[dim]
        if isinstance(axis, Axis):
            axes[dim] = replace(axis, start=axis.start + axis.step * (tensor.shape[dim] - 1), step=-axis.step)
    return [Tag(tuple(axes))]


def _cat(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    dim = args[1] if len(args) > 1 else 0
    known = next((k for k, (_, tag) in enumerate(inputs) if tag.known), 0)
    axes = _axes(inputs, known)
    at = dim % len(axes)
    axis = axes[at]
    if known != 0 or not isinstance(axis, Axis) or axis.kind == SAMPLE:
        axes[at] = None  # the first part keeps its numbering, a later one does not
    return [Tag(tuple(axes))]


def _stack(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    dim = args[1] if len(args) > 1 else 0
    axes = list(_alike(inputs, inputs[0][0]).axes)
    times = [dict(tag.fixed).get(TIMESTEP) for _, tag in inputs]
    steps = {b - a for a, b in itertools.pairwise(times) if a is not None and b is not None}
    new: AnyAxis = None
    if None not in times and len(times) > 1 and len(steps) == 1:
        new = Axis(TIMESTEP, times[0] or 0, steps.pop())
    axes.insert(dim % (len(axes) + 1), new)
    return [Tag(tuple(axes))]


def _reduce(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    dims = args[1] if len(args) > 1 and not isinstance(args[1], bool) else None
    if dims is None or not isinstance(dims, (int, list, tuple)):
        dims = range(len(axes))
    gone = {d % len(axes) for d in ([dims] if isinstance(dims, int) else dims or range(len(axes)))} if axes else set()
    keep = len(outputs[0].shape) == len(axes)
    kept = [None if k in gone else axis for k, axis in enumerate(axes) if keep or k not in gone]
    return [Tag(tuple(kept)) for _ in outputs]


def _mm(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    return [Tag((_axes(inputs, len(inputs) - 2)[0], _axes(inputs, len(inputs) - 1)[-1]))]


def _bmm(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    a, b = _axes(inputs, len(inputs) - 2), _axes(inputs, len(inputs) - 1)
    return [Tag((a[0] or b[0], a[1], b[2]))]


def _embedding(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    return [Tag((*_axes(inputs, 1), None))]


def _conv(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    tensor, _ = _first(inputs)
    axes = _axes(inputs)
    out = outputs[0]
    kept = [axes[0], None] + [
        axis if size == out.shape[k + 2] else None
        for k, (axis, size) in enumerate(zip(axes[2:], tensor.shape[2:], strict=True))
    ]
    return [Tag(tuple(kept))]


def _matrices(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    """What works on whole matrices keeps the axes that count them."""
    axes = _axes(inputs)[:-2]
    return [Tag(tuple(axes[: len(out.shape)])) for out in outputs]


def _expand(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    return [_alike(inputs, outputs[0])]


def _pad(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    axes = _axes(inputs)
    pads = list(args[1])
    for k in range(len(pads) // 2):
        axis = axes[-1 - k]
        if isinstance(axis, Axis) and pads[2 * k]:
            axes[-1 - k] = replace(axis, start=axis.start - axis.step * pads[2 * k])
    return [Tag(tuple(axes))]


def _index(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    """Rows picked by an index or a mask: which ones is no longer known, the axes that were not indexed stay."""
    axes = _axes(inputs)
    picked = [k for k, index in enumerate(args[1]) if index is not None]
    spans = sum(index.ndim if str(index.dtype) == "torch.bool" else 1 for index in args[1] if index is not None)
    rest = [axis for k, axis in enumerate(axes) if k not in range(picked[0], picked[0] + spans)]
    out = outputs[0]
    return [Tag((None,) * (len(out.shape) - len(rest)) + tuple(rest))]


def _leading(args: Any, inputs: Any, outputs: list[Any]) -> list[Tag]:
    """The first output is like the input, the others (means, indices …) share its leading axes."""
    tensor, _ = _first(inputs)
    axes = _axes(inputs)
    return [
        Tag(
            tuple(
                axis if k < len(out.shape) and out.shape[k] == tensor.shape[k] else None for k, axis in enumerate(axes)
            )
        )
        if len(out.shape) == len(axes)
        else Tag((None,) * len(out.shape))
        for out in outputs
    ]


_RULES: dict[str, Any] = {
    **dict.fromkeys(("view", "unsafe_view", "reshape", "squeeze", "flatten", "unflatten", "reshape_copy"), _view),
    **dict.fromkeys(
        (
            "sum", "mean", "amax", "amin", "max", "min", "var", "std", "prod", "any", "all", "logsumexp", "argmax",
            "argmin", "nansum", "nanmean", "linalg_vector_norm", "norm", "var_mean", "std_mean", "median", "nanmedian",
        ),
        _reduce,
    ),
    **dict.fromkeys(("t", "transpose", "numpy_T"), _transpose),
    **dict.fromkeys(("mm", "addmm"), _mm),
    **dict.fromkeys(("bmm", "baddbmm"), _bmm),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("convolution", "conv1d", "conv2d"), _conv),
    **dict.fromkeys(
        (
            "native_layer_norm", "native_batch_norm", "native_group_norm", "sort", "topk", "cummax", "cummin",
            "scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_efficient_attention",
            "scaled_dot_product_flash_attention", "native_dropout", "cudnn_batch_norm",
        ),
        _leading,
    ),
    **dict.fromkeys(
        (
            "linalg_slogdet", "linalg_det", "linalg_inv_ex", "linalg_inv", "linalg_cholesky_ex", "linalg_cholesky",
            "cholesky", "linalg_solve_ex", "linalg_solve", "linalg_lu_factor_ex", "linalg_lu", "linalg_qr",
            "linalg_svd", "linalg_eigh", "linalg_eig", "linalg_eigvals", "inverse", "cholesky_solve",
            "linalg_solve_triangular", "linalg_lstsq", "linalg_pinv",
        ),
        _matrices,
    ),
    "permute": _permute,
    "unsqueeze": _unsqueeze,
    "select": _select,
    "unbind": _unbind,
    "slice": _slice,
    "flip": _flip,
    "cat": _cat,
    "stack": _stack,
    "embedding": _embedding,
    "expand": _expand,
    "constant_pad_nd": _pad,
    "index": _index,
}  # fmt: skip
"""How axes travel through operations that are not element-wise; everything else is taken as element-wise."""
