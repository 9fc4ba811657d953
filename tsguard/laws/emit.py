"""A counterexample as a pytest test that fails today and passes once the fault is mended.

The test takes the fixture `subject` of tsguard's pytest plugin and carries the batch itself, so that it needs
nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsguard.laws.results import SMALL_ARRAY, Counterexample


def pytest_source(found: Counterexample, ground: Any) -> str:
    """The source of the test. Batches too large to read are left to the subject's own data."""
    reading = ground.reading
    small = all(np.asarray(leaf).size <= SMALL_ARRAY for leaf in found.before.values())
    own = {name: leaf for name, leaf in found.before.items() if name in reading.inputs.names}
    name = "test_" + "".join(char if char.isalnum() else "_" for char in found.law.lower()).strip("_")
    lines = [
        f'"""{found.code}: {_tidy(found.words)}"""',
        "",
        "import numpy as np",
        "from tsguard import Padding, laws",
        "",
    ]
    if not (small and own):
        lines[2:4] = ["from tsguard import Padding, laws"]
    lines += ["", f"def {name}(subject):"]
    if small and own:
        if reading.inputs.kind == "array":
            lines.append(f"    x = {_literal(own[reading.inputs.names[0]])}")
        elif reading.inputs.kind == "dict":
            lines += (
                ["    x = {"]
                + [f"        {leaf!r}: {_literal(own[leaf])}," for leaf in reading.inputs.names]
                + ["    }"]
            )
        else:
            lines += ["    x = ["] + [f"        {_literal(own[leaf])}," for leaf in reading.inputs.names] + ["    ]"]
        targets = {key[2:-1]: leaf for key, leaf in found.before.items() if key.startswith("y[")}
        lines.append(f"    y = {_targets(targets, ground)}")
        data = "(x, y)"
    else:
        data = "subject.data"
    lines += [
        f"    padding = {_padding(ground)}",
        f"    [result] = laws.run(subject.model(), {data}, padding, only=[{found.law!r}])",
        '    assert result.outcome == "holds", result.reason',
        "",
    ]
    return "\n".join(lines)


def _tidy(words: str) -> str:
    return words.replace("\\", "/").replace('"', "'")


def _literal(array: NDArray[Any]) -> str:
    array = np.asarray(array)
    text = repr(array.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f'np.array({text}, dtype="{array.dtype}")'


def _targets(targets: dict[str, NDArray[Any]], ground: Any) -> str:
    structure = ground.reading.targets
    if structure is None or not targets:
        return "None"
    if structure.kind == "array":
        return _literal(targets[structure.names[0]])
    if structure.kind == "dict":
        return "{" + ", ".join(f"{name!r}: {_literal(targets[name])}" for name in structure.names) + "}"
    return "[" + ", ".join(_literal(targets[name]) for name in structure.names) + "]"


def _padding(ground: Any) -> str:
    """The reading as a declaration, so that the test does not depend on what is inferred from so small a batch."""
    reading = ground.reading
    if not reading.declared and not reading.padded:
        return "None"
    declared = reading.padding
    outputs = next((axis for axis in reading.output_time if axis is not None), None)
    features = (declared.features or (-1, reading.features[1])) if reading.features else None
    pad = "float('nan')" if np.isnan(declared.pad_value) else repr(declared.pad_value)
    time = {name: axis for name, axis in reading.time.items() if name in reading.values}
    return (
        f"Padding(inputs={time!r}, mask={reading.mask!r}, outputs={outputs!r}, pad_value={pad}, "
        f"side={declared.side!r}, "
        f"causal={declared.causal!r}, features={features!r}, timestamps={reading.timestamps!r}, "
        f"either_side={declared.either_side!r}, feature_sets={declared.feature_sets!r})"
    )
