"""The linear recurrence `h_t = a_t h_{t−1} + b_t` along axis 1, for real and complex numbers.

A number is a tuple of arrays: `(real,)` or `(real, imaginary)`. Only products, sums, slices and joins are used, so
every float type stays what it is on every backend; `keras.ops.associative_scan` narrows float64 and drops imaginary
parts on torch.
"""

import keras
from keras import ops

# Elements per step from which a step is dearer than the call that starts it, so that the loop, which does every product
# once, beats the tree, which needs fewer calls: on a CPU the tree is 2× faster at 1e3, the loop 2–5× faster at 1e5. An
# accelerator's calls cost the same and its elements next to nothing: there the tree always wins.
LONG_STEP = 16_384
SHORTEST_TREE = 8


def linear_scan(a, b, method: str = "auto"):
    """All states, from h = 0 before the first step. `method`: "loop", "tree" or "auto", which picks the faster one."""
    if method == "auto":
        method = "loop" if _on_cpu(a[0]) and _step_size(a[0]) >= LONG_STEP else "tree"
    if method not in ("loop", "tree"):
        raise ValueError(f"method is 'auto', 'loop' or 'tree'; received {method!r}.")
    return _loop(a, b) if method == "loop" else _tree(a, b)


def multiply(x, y):
    """The product of two numbers, real or complex."""
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _loop(a, b):
    # One unstack, not T slices: the gradient of a slice is an array of full length.
    columns = [zip(*(ops.unstack(part, axis=1) for part in number), strict=True) for number in (a, b)]
    states = []
    for step_a, step_b in zip(*columns, strict=True):
        states.append(step_b if not states else _add(multiply(step_a, states[-1]), step_b))
    return tuple(ops.stack(part, axis=1) for part in zip(*states, strict=True))


def _tree(a, b):
    """Pairs of neighbours are joined, the half as long sequence is scanned, and the steps between are filled in."""
    length = a[0].shape[1]
    if length <= SHORTEST_TREE:
        return _loop(a, b)
    half = length // 2
    early_a, late_a = _every_second(a, 0, half), _every_second(a, 1, half)
    early_b, late_b = _every_second(b, 0, half), _every_second(b, 1, half)
    odd = _tree(multiply(late_a, early_a), _add(multiply(late_a, early_b), late_b))
    rest = (length - 1) // 2
    between = _add(
        multiply(tuple(p[:, 2::2] for p in a), tuple(p[:, :rest] for p in odd)), tuple(p[:, 2::2] for p in b)
    )
    return tuple(
        _interleave(ops.concatenate([first[:, :1], even], axis=1), late, half)
        for first, even, late in zip(b, between, odd, strict=True)
    )


def _interleave(even, odd, half):
    pairs = ops.stack([even[:, :half], odd], axis=2)
    joined = ops.reshape(pairs, (-1, 2 * half, *odd.shape[2:]))
    return joined if even.shape[1] == half else ops.concatenate([joined, even[:, half:]], axis=1)


def _every_second(x, start, half):
    return tuple(part[:, start : 2 * half : 2] for part in x)


def _add(x, y):
    return tuple(p + q for p, q in zip(x, y, strict=True))


def _on_cpu(array) -> bool:
    return keras.backend.backend() == "torch" and array.device.type == "cpu"


def _step_size(array) -> int:
    size = 1
    for extent in (array.shape[0], *array.shape[2:]):
        size *= extent or 1
    return size
