"""Copied code loses what the failure does not need, and nothing else."""

from tsguard.repro.code.lines import Lines
from tsguard.repro.code.shorten import drop_unread, shortened

SOURCE = """def step(batch):
    x, y = batch
    first = x * 2
    second = first + y
    third = y; fourth = third
    if y:
        second = second + 1
        second = second + 2
    else:
        y = 0
    return second"""


def runs(sources):
    space = {}
    exec(sources["step"], space)
    try:
        return space["step"]((1, 1))
    except NameError:
        return None


def test_only_what_the_answer_hangs_on_is_left():
    kept = shortened({"step": SOURCE}, lambda sources: runs(sources) == 6)
    assert runs(kept) == 6
    assert "third = y; fourth = third" in kept["step"], "what shares a line cannot go alone"
    assert "first = x * 2" in kept["step"]
    assert "second + 1" in kept["step"]
    assert "return second" in kept["step"]


def test_a_block_goes_as_a_whole():
    kept = shortened({"step": SOURCE}, lambda sources: runs(sources) in (3, 6))
    assert "if y:" not in kept["step"]
    assert runs(kept) == 3


def test_what_is_always_kept_leaves_the_rest_alone():
    assert shortened({"step": SOURCE}, lambda sources: False) == {"step": SOURCE}


def test_definitions_and_imports_that_nothing_names_go():
    lines = Lines(
        imports={"import torch", "from keras import ops", "import numpy as np"},
        sources={"a": "a = b", "b": "b = 1", "used": "def used():\n    return ops.log(0.0)"},
        body=["model = used()"],
    )
    drop_unread(lines, ["x = np.ones(3)"])
    assert list(lines.sources) == ["used"]
    assert lines.imports == {"from keras import ops", "import numpy as np"}


CHOICE = """def act(x):
    if sick:
        y = x + 1
        y = y * 2
    else:
        y = 0
    return (y if sick else -y) + 1"""


def acted(sources, sick):
    space = {"sick": sick}
    exec(sources["act"], space)
    try:
        return space["act"](1)
    except NameError:
        return None


def test_a_choice_is_decided_as_it_fell():
    kept = shortened({"act": CHOICE}, lambda sources: acted(sources, True) == 5)
    assert kept["act"] == "def act(x):\n    y = x + 1\n    y = y * 2\n    return (y) + 1"
    other = shortened({"act": CHOICE}, lambda sources: acted(sources, False) == 1)
    assert "sick" not in other["act"]
    assert acted(other, False) == 1


def test_what_stands_behind_the_end_of_a_function_goes():
    source = "def act(x):\n    if sick:\n        return x + 1\n    return x"
    kept = shortened({"act": source}, lambda sources: acted(sources, True) == 2)
    assert kept["act"] == "def act(x):\n    return x + 1"
