"""Findings that need the validation part, weights or arguments of `fit`: fewest rows of each, and lines that say so."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.repro.programs import run
from tsguard.checks.registry import Context, all_checks
from tsguard.checks.runner import run_checks
from tsguard.dataset import Data
from tsguard.findings import Finding, Role, Status
from tsguard.repro.asked_parts import FORMS
from tsguard.repro.find import READ, other_case
from tsguard.repro.parts import Parts, _Asked
from tsguard.subject import Subject

RNG = np.random.default_rng(0)
X, OTHER = RNG.normal(size=(300, 5)).astype("float32"), RNG.normal(size=(200, 5)).astype("float32")
Y, OTHER_Y = (np.tanh(part[:, :1] - part[:, 1:2]) for part in (X, OTHER))
KINDS, OTHER_KINDS = ((part[:, 0] > 0).astype("int32") for part in (Y, OTHER_Y))
SERIES = RNG.normal(size=(400, 2)).astype("float32")
WINDOWS = np.stack([SERIES[k : k + 8] for k in range(392)])
WEIGHED = RNG.normal(size=(40, 6, 2)).astype("float32") * (np.arange(6) < 4)[None, :, None]
THERE = np.tile(np.arange(6) < 4, (40, 1)).astype("float32")


RHYTHMS = RNG.integers(0, 3, 400)
WAVES = np.sin((0.4 + 0.5 * RHYTHMS[:, None]) * np.arange(16) + RNG.uniform(0, 6.28, (400, 1)))[..., None]


TOPICS = RNG.integers(0, 2, 800)
WORDS = RNG.integers(0, 10, (800, 12)) + 8 * TOPICS[:, None]


def dealt(part):
    return np.random.default_rng(1).permutation(part)


def scaled(part):
    return (part - part.mean(0)) / part.std(0)


def stretched(part):
    return (part - part.min(0)) / np.ptp(part, axis=0)


def weighed(table):
    return Parts(X, (np.arange(300) % 10 == 0).astype("int32"), fit={"class_weight": table})


def ordered(labels, **fit):
    return Parts(X, labels, fit={"batch_size": 10, **fit})


CASES = {
    "data-leak of rows": (Parts(X, Y, None, np.concatenate([OTHER, X[:9]]), None), Parts(X, Y, None, OTHER, None)),
    "data-leak of steps": (
        Parts(WINDOWS[::2], None, None, WINDOWS[1::2]),
        Parts(WINDOWS[:200], None, None, WINDOWS[210:]),
    ),
    "data-leak of copies": (
        Parts(X, None, None, X[:200] + 0.01 * RNG.normal(size=(200, 5)).astype("float32")),
        Parts(X, None, None, OTHER),
    ),
    "data-drift": (Parts(X, Y, None, 255 * OTHER, OTHER_Y), Parts(X, Y, None, OTHER, OTHER_Y)),
    "data-drift of two scalers": (Parts(scaled(X), Y, None, scaled(OTHER)), Parts(scaled(X), Y, None, OTHER)),
    "data-drift of two ranges": (Parts(stretched(X), Y, None, stretched(OTHER)), Parts(stretched(X), Y, None, OTHER)),
    "data-labels of waves": (
        Parts(WAVES[:200], RHYTHMS[:200], None, WAVES[200:], (RHYTHMS[200:] + 1) % 3),
        Parts(WAVES[:200], RHYTHMS[:200], None, WAVES[200:], RHYTHMS[200:]),
    ),
    "data-labels of rows": (Parts(X, KINDS, None, OTHER, 1 - OTHER_KINDS), Parts(X, KINDS, None, OTHER, OTHER_KINDS)),
    "data-mispaired of a column": (
        Parts(np.concatenate([dealt(X[:, :1]), X[:, 1:]], axis=1), Y, None, OTHER, OTHER_Y),
        Parts(X, Y, None, OTHER, OTHER_Y),
    ),
    "data-mispaired of ids": (
        Parts(WORDS[:400], dealt(TOPICS[:400]), None, WORDS[400:], TOPICS[400:]),
        Parts(WORDS[:400], TOPICS[:400], None, WORDS[400:], TOPICS[400:]),
    ),
    "data-mispaired of a named column": (
        Parts({"a": dealt(X[:, :1]), "b": X}, Y, None, {"a": OTHER[:, :1], "b": OTHER}, OTHER_Y),
        Parts({"a": X[:, :1], "b": X}, Y, None, {"a": OTHER[:, :1], "b": OTHER}, OTHER_Y),
    ),
    "data-mispaired of waves": (
        Parts(WAVES[:200], dealt(RHYTHMS[:200]), None, WAVES[200:], RHYTHMS[200:]),
        Parts(WAVES[:200], RHYTHMS[:200], None, WAVES[200:], RHYTHMS[200:]),
    ),
    "data-mispaired of all": (Parts(X, dealt(Y), None, OTHER, OTHER_Y), Parts(X, Y, None, OTHER, OTHER_Y)),
    "mask-inverted": (Parts(WEIGHED, WEIGHED[..., 0], 1 - THERE), Parts(WEIGHED, WEIGHED[..., 0], THERE)),
    "config-unused-key": (weighed({"0": 1.0, "1": 9.0}), weighed({0: 1.0, 1: 9.0})),
    "data-imbalance of one class": (weighed({0: 1e4, 1: 1.0}), weighed({0: 1.0, 1: 9.0})),
    "data-imbalance turned round": (weighed({0: 5.0, 1: 1.0}), weighed({0: 1.0, 1: 9.0})),
    "data-order of the last part": (
        ordered(np.arange(300) // 75, validation_split=0.3),
        ordered(np.arange(300) % 4, validation_split=0.3),
    ),
    "data-order of classes": (ordered(np.arange(300) // 100, shuffle=False), ordered(np.arange(300) // 100)),
    "data-order of batches": (ordered(np.arange(300) // 10 % 3, shuffle=False), ordered(np.arange(300) // 10 % 3)),
    "data-order of values": (ordered(np.arange(300.0), shuffle=False), ordered(np.arange(300.0))),
    "loss-degenerate of no weight": (Parts(X, Y, np.zeros(300)), Parts(X, Y, np.arange(300) % 2 / 2)),
    "loss-degenerate": (Parts(X, Y, np.arange(300.0) % 5), Parts(X, Y, 1 + np.arange(300.0) % 5 / 10)),
}


WHERE = {code: {"config_key": "class_weight"} for code in ("config-unused-key", "data-imbalance")}
WHERE["data-drift"] = {"feature": 0}


def wrong(name, parts):
    """Whether some form of the code finds the parts wrong."""
    code = name.partition(" ")[0]
    where = {
        "phase": "data",
        "input": "a",
        **WHERE.get(code, {}),
        **({"split": "validation"} if "last part" in name else {}),
    }
    finding = Finding(code, Status.FAIL, Role.CAUSE, "sick", where=where)
    asked = _Asked(finding, {}, float("inf"), lambda: 0.0, lambda words: None)
    return any(asked.lines(form, parts) is not None for form in FORMS[code])


@pytest.mark.parametrize("name", CASES)
def test_the_lines_find_the_sick_parts_and_pass_the_healthy_ones(name):
    sick, healthy = CASES[name]
    assert wrong(name, sick)
    assert not wrong(name, healthy)


def line(units=1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(units)])
    model.compile("sgd", "mse")
    return model


def found(check, code, model, data, **facts):
    """The whole context, and what one check says in it."""
    context = Context(subject=Subject.from_model(model), data=data, facts=facts)
    said = run_checks(context, [one for one in all_checks() if one.name == check])
    findings = [one for one in said if one.code == code and one.status in ("WARN", "FAIL")]
    assert findings
    return context, findings


def reduced(check, code, data, **facts):
    model = line()
    context, findings = found(check, code, model, data, **facts)
    return other_case(findings, model=model, data=data, name="parts", budget_s=30, context=context)


@pytest.mark.slow
def test_rows_in_both_parts_become_a_script_of_numpy_alone(tmp_path):
    data = Data(X, Y, validation=(np.concatenate([OTHER, X[:9]]), np.concatenate([OTHER_Y, Y[:9]])))
    case = reduced("parts that share samples", "data-leak", data)
    assert case.size < case.original_size / 20
    script = case.save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    assert "tsguard" not in script.read_text()
    (tmp_path / "mended.py").write_text(
        "import numpy as np\n\ndef build():\n    return np.zeros((4, 5)), np.ones((4, 5))\n"
    )
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


@pytest.mark.slow
def test_what_no_lines_say_of_two_parts_is_asked_of_the_check(tmp_path):
    swapped = OTHER[:, [1, 0, 2, 3, 4]]
    case = reduced("parts that teach different things", "data-mispaired", Data(X, Y, validation=(swapped, OTHER_Y)))
    script = case.save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    assert "validation=(held_x, held_y)" in script.read_text()


@pytest.mark.slow
def test_what_is_only_remarked_on_is_reduced_where_nothing_fails(tmp_path):
    target = Y.copy()
    data = Data(np.concatenate([X, 2 * target + 1], axis=1)[:, 1:], target)
    case = reduced("target among the inputs", "data-leak", data)
    text = case.save(tmp_path).read_text()
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    assert "tsguard" not in text


@pytest.mark.slow
def test_a_remark_is_reduced_where_what_fails_has_no_script():
    data = Data(np.concatenate([X, 2 * Y + 1], axis=1)[:, 1:], Y)
    model = line()
    context, findings = found("target among the inputs", "data-leak", model, data)
    failed = Finding("data-volume", Status.FAIL, Role.CAUSE, "too little")
    case = other_case([failed, *findings], model=model, data=data, name="x", budget_s=9, context=context)
    assert case.fingerprint.code == "data-leak"


@pytest.mark.slow
def test_arguments_of_fit_can_be_mended_too(tmp_path):
    labels = np.repeat([0, 1], 150)[:, None].astype("float32")
    data = Data(X, labels, batch_size=16)
    case = reduced("time that does not run forward", "data-order", data, fit={"shuffle": False, "batch_size": 16})
    script = case.save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    (tmp_path / "mended.py").write_text(
        "import numpy as np\n\n"
        "def build():\n    return np.repeat([0.0, 1.0], 150)[:, None], {'shuffle': True, 'batch_size': 16}\n"
    )
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


class Sorted(keras.utils.PyDataset):
    """Batches of one class each, as they lie in their folders."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return X[10 * index : 10 * index + 10], np.full(10, index // 10)


@pytest.mark.slow
def test_what_is_said_of_a_loader_becomes_a_script_of_the_arrays_that_it_gave(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = Data(Sorted())
    context, findings = found("batches of one class each", "data-order", model, data, fit={"epochs": 2})
    case = other_case(findings, model=model, data=data, name="loaded", budget_s=30, context=context)
    script = case.save(tmp_path)
    assert "confirmed in a fresh process | yes" in (tmp_path / "README.md").read_text()
    assert "tsguard" not in script.read_text()
    (tmp_path / "mended.py").write_text("import numpy as np\n\ndef build():\n    return np.arange(300) % 3, {}\n")
    code, said = run(script, "--use", "mended:build", path=tmp_path)
    assert code == 0, said


def test_a_generator_is_read_once_for_all_reductions():
    rng = np.random.default_rng(0)
    data = Data((X[rows], Y[rows]) for rows in (rng.permutation(300)[:10] for _ in range(999)))
    context = Context(subject=Subject.from_model(line()), data=data)
    other_case([], model=context.model, data=data, name="drawn", budget_s=9, context=context)
    first = context.facts[READ]
    other_case([], model=context.model, data=data, name="drawn", budget_s=9, context=context)
    assert context.facts[READ] is first
    assert first.is_arrays


def test_what_passes_is_not_reduced():
    data = Data(X, Y, validation=(X[:50], Y[:50]))
    context = Context(subject=Subject.from_model(line()), data=data)
    passed = Finding("data-leak", Status.PASS, Role.NOTE, "none found", check="parts that share samples")
    assert other_case([passed], model=line(), data=data, name="x", budget_s=9, context=context) is None
