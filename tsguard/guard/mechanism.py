"""What an operation did with the values it got, in words, and of which kind that is.

Kinds: `singularity` (log of 0, 0/0, sqrt at 0 in backward …), `overflow` (finite values grew out of the range of the
dtype), `precision` (the same values in float32 would have been fine), `empty` (a mean over nothing, a softmax over
nothing), `fill` (an infinity that the program put there), `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tsguard.guard.axes import Tag
from tsguard.guard.records import OpRecord

FILLS = frozenset("full full_like fill masked_fill where scalar_tensor new_full tensor lift_fresh copy".split())
"""Operations by which programs write infinities on purpose."""

COUNTS = (("sum",), ("count_nonzero",), ("to_copy",))
"""What makes a divisor that counts: 0/0 by one of these is a mean over nothing, by a deviation it is not."""

LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Mechanism:
    """The words and the kind."""

    words: str
    kind: str


def is_fill(record: OpRecord) -> bool:
    """Whether the bad values are infinities that stand in the program as a constant."""
    if record.nan_out or record.phase == "backward":
        return False
    if any(isinstance(value, float) and value in (float("inf"), float("-inf")) for _, value, _ in record.operands):
        return True
    return record.name in FILLS and record.name != "copy"


def explain(record: OpRecord, index: tuple[int, ...] | None) -> Mechanism:
    """How this operation came to its bad value at `index` of its output."""
    name = record.name
    values = dict(operand_values(record, index))
    low = _low_precision(record)
    if low is not None:
        return Mechanism(low, "precision")
    if record.phase == "backward":
        return _backward(record, values)
    if _empty(record):
        return Mechanism(f"{name} over an empty selection: there is nothing to average, 0/0 is NaN", "empty")
    if name.startswith(("linalg_", "cholesky", "inverse")) and not record.bad_in and name not in _NORMS:
        return Mechanism(f"{name} of a matrix that is singular (its determinant is 0) or nearly so", "singularity")
    rule = _FORWARD.get(name)
    if rule is not None:
        found = rule(record, values)
        if found is not None:
            return found
    if record.nan_out and record.bad_in and not record.nan_in:
        return Mechanism(f"{name} turned infinities into NaN (∞ − ∞ or 0 · ∞)", "singularity")
    if not record.nan_out:
        return Mechanism(f"{name} of finite values left the range of {_dtype(record)}{_shown(values)}", "overflow")
    return Mechanism(f"{name} of finite values gave NaN{_shown(values)}", "unknown")


def operand_values(record: OpRecord, index: tuple[int, ...] | None) -> list[tuple[str, Any]]:
    """The values that went in, at the element where operands have it, else their range."""
    shape = tuple(record.outputs[0][0].shape) if record.outputs else ()
    found: list[tuple[str, Any]] = []
    for name, value, _ in record.operands:
        if isinstance(value, torch.Tensor):
            found.append((name, _at(value, shape, index)))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((name, value))
    return found


def _at(value: torch.Tensor, shape: tuple[int, ...], index: tuple[int, ...] | None) -> Any:
    if value.numel() == 0:
        return "empty"
    if value.numel() == 1:
        return _number(value.reshape(()))
    if index is not None and value.ndim <= len(shape):
        offset = len(shape) - value.ndim
        own = index[offset:]
        if all(size in (1, shape[k + offset]) for k, size in enumerate(value.shape)):
            return _number(value[tuple(0 if value.shape[k] == 1 else i for k, i in enumerate(own))])
    if not value.is_floating_point():
        return f"{tuple(value.shape)} {value.dtype}"
    whole = value.double()
    return f"{tuple(value.shape)}, from {whole.min().item():.6g} to {whole.max().item():.6g}"


def _number(value: torch.Tensor) -> Any:
    return value.item()


def _shown(values: dict[str, Any]) -> str:
    parts = [
        f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}" for name, value in values.items()
    ]
    return f" ({', '.join(parts[:4])})" if parts else ""


def _dtype(record: OpRecord) -> str:
    return str(record.outputs[0][0].dtype).removeprefix("torch.") if record.outputs else "its dtype"


def _empty(record: OpRecord) -> bool:
    reduces = record.name in ("mean", "var", "std", "var_mean", "std_mean", "median", "nanmean", "logsumexp", "softmax")
    return reduces and any(isinstance(v, torch.Tensor) and v.numel() == 0 for _, v, _ in record.operands)


def _low_precision(record: OpRecord) -> str | None:
    """The same operation on the same values in float32: does it stay finite there?"""
    low_out = any(out.dtype in LOW for out, _ in record.outputs)
    if not low_out or record.bad_in or record.func is None or record.func._schema.is_mutable:
        return None
    dtype = next(out.dtype for out, _ in record.outputs if out.dtype in LOW)
    limit = torch.finfo(dtype).max
    if record.name in ("to_copy", "copy", "to"):
        source = next((v for _, v, _ in record.operands if isinstance(v, torch.Tensor)), None)
        largest = source.abs().max().item() if source is not None else float("nan")
        return f"a cast to {str(dtype)[6:]}: {largest:.6g} is above its largest number, {limit:.6g}"
    try:
        args = [_raised(arg) for arg in record.args]
        kwargs = {key: torch.float32 if value in LOW else _raised(value) for key, value in record.kwargs.items()}
        again = record.func(*args, **kwargs)
    except Exception:  # not every overload takes float32 beside what else it was given
        return None
    first = again[0] if isinstance(again, (tuple, list)) else again
    if isinstance(first, torch.Tensor) and bool(torch.isfinite(first).all()):
        largest = first.abs().max().item() if first.numel() else float("nan")
        if largest > limit:
            return (
                f"{record.name} in {str(dtype)[6:]} overflowed: {largest:.6g} is above its largest number, {limit:.6g}"
            )
        return f"{record.name} in {str(dtype)[6:]} is not finite where float32 is: values went under or over its range"
    return None


def _raised(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in LOW else value
    if isinstance(value, (list, tuple)):
        return type(value)(_raised(part) for part in value)
    return value


def _single(values: dict[str, Any]) -> Any:
    return next(iter(values.values()), None)


def _log(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    value = _single(values)
    if isinstance(value, float):
        base = -1.0 if record.name == "log1p" else 0.0
        word = {"log1p": "log(1 + x)"}.get(record.name, record.name)
        if value == base:
            return Mechanism(f"{word} of {value:g}: log of 0 is −∞", "singularity")
        if value < base:
            return Mechanism(f"{word} of {value:.6g}: the log of a negative number is NaN", "singularity")
    return None


def _sqrt(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    value = _single(values)
    if isinstance(value, float) and value < 0:
        return Mechanism(f"{record.name} of {value:.6g}: the root of a negative number is NaN", "singularity")
    if isinstance(value, float) and value == 0 and record.name in ("rsqrt", "reciprocal"):
        return Mechanism(f"{record.name} of 0: 1/0 is ∞", "singularity")
    return None


def _div(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    numbers = list(values.values())
    if len(numbers) < 2 or not isinstance(numbers[1], (int, float)):
        return None
    top, bottom = numbers[0], numbers[1]
    if bottom == 0:
        if top == 0:
            words = "0/0: nothing was selected, or a norm or sum was 0"
            sizes = [v for _, v, _ in record.operands if isinstance(v, torch.Tensor)]
            counted = len(sizes) == 2 and all(v.numel() == 1 for v in sizes) and record.made_by[-1:] in COUNTS
            return Mechanism(words, "empty" if counted else "singularity")
        shown = f"{top:.6g}" if isinstance(top, (int, float)) else str(top)
        return Mechanism(f"{shown}/0: a division by 0", "singularity")
    return None


def _pow(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    numbers = list(values.values())
    if len(numbers) < 2 or not all(isinstance(n, (int, float)) for n in numbers[:2]):
        return None
    base, exponent = numbers[0], numbers[1]
    if base == 0 and exponent < 0:
        return Mechanism(f"0 to the power {exponent:g}: a division by 0", "singularity")
    if base < 0 and exponent != int(exponent):
        return Mechanism(f"{base:.6g} to the power {exponent:g}: a root of a negative number is NaN", "singularity")
    return None


def _exp(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    value = _single(values)
    if isinstance(value, float):
        return Mechanism(f"{record.name} of {value:.6g} is above the largest number of {_dtype(record)}", "overflow")
    return None


def _softmax(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    if record.bad_in and not record.nan_in:
        return Mechanism(
            f"{record.name} over nothing: every entry of the row is −∞ (all positions are masked), so it is 0/0",
            "empty",
        )
    return None


def _trig(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    value = _single(values)
    if isinstance(value, float) and abs(value) >= 1:
        return Mechanism(f"{record.name} of {value:.9g}: outside where it is defined", "singularity")
    return None


def _spread(record: OpRecord, values: dict[str, Any]) -> Mechanism | None:
    value = next((v for _, v, _ in record.operands if isinstance(v, torch.Tensor)), None)
    if value is not None and record.nan_out and not record.bad_in:
        return Mechanism(f"{record.name} of a single value with a correction of 1 is 0/0", "singularity")
    return None


_FORWARD = {
    **dict.fromkeys(("log", "log2", "log10", "log1p", "xlogy"), _log),
    **dict.fromkeys(("sqrt", "rsqrt", "reciprocal"), _sqrt),
    **dict.fromkeys(("div", "true_divide", "floor_divide", "remainder", "fmod"), _div),
    "pow": _pow,
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), _spread),
    **dict.fromkeys(("exp", "expm1", "exp2", "cosh", "sinh"), _exp),
    **dict.fromkeys(("softmax", "log_softmax", "safe_softmax"), _softmax),
    **dict.fromkeys(("acos", "asin", "atanh", "acosh", "erfinv", "logit", "digamma", "lgamma"), _trig),
}

_NORMS = ("linalg_vector_norm", "linalg_norm", "linalg_cross", "linalg_vecdot")
"""Of the linear algebra, what has no trouble with a singular matrix."""

_SLOPES = {
    "sqrt": "the slope of sqrt at 0 is ∞",
    "rsqrt": "the slope of 1/sqrt at 0 is ∞",
    "log": "the slope of log at 0 is ∞",
    "log2": "the slope of log at 0 is ∞",
    "log10": "the slope of log at 0 is ∞",
    "log1p": "the slope of log(1 + x) at −1 is ∞",
    "pow": "the slope of a power below 1 at 0 is ∞",
    "linalg_vector_norm": "the slope of a norm at 0 is 0/0",
    "norm": "the slope of a norm at 0 is 0/0",
    "std": "the slope of a standard deviation at 0 is 0/0",
    "div": "the slope of a quotient whose divisor is 0",
    "reciprocal": "the slope of 1/x at 0 is ∞",
    "acos": "the slope of acos at ±1 is ∞",
    "asin": "the slope of asin at ±1 is ∞",
    "atan2": "the slope of atan2 at (0, 0) is 0/0",
    "exp": "the slope of exp is as large as exp itself",
    "prod": "the slope of a product divides by each factor",
}


def _backward(record: OpRecord, values: dict[str, Any]) -> Mechanism:
    forward = record.forward
    name = forward.name if forward is not None else (record.node or record.name)
    slope = _SLOPES.get(name)
    shown = _shown(values)
    if record.name in ("mm", "bmm", "addmm", "convolution_backward", "sum") and slope is None:
        return Mechanism(
            f"in backward of {name}: {record.name} of finite values left the range of {_dtype(record)}", "overflow"
        )
    if slope is not None:
        return Mechanism(
            f"in backward of {name}: {slope} ({record.name} in {record.node}{', ' + shown[2:-1] if shown else ''})",
            "singularity",
        )
    kind = "singularity" if record.nan_out or record.name in ("div", "reciprocal", "pow") else "overflow"
    return Mechanism(f"in backward of {name}: {record.name} of finite values is not finite{shown}", kind)


def first_bad(record: OpRecord) -> tuple[tuple[int, ...] | None, Tag, int]:
    """Index of the first bad element of the output, the meaning of the output's axes, and how many are bad."""
    for value, tag in record.outputs:
        if not (value.is_floating_point() or value.is_complex()):
            continue
        bad = torch.isnan(value) if record.nan_out and record.bad_in else ~torch.isfinite(value)
        if bool(bad.any()):
            places = bad.nonzero()
            return tuple(int(i) for i in places[0].tolist()), tag, len(places)
    return None, Tag(()), 0
