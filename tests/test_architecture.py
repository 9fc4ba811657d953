"""The house: imports point downward, effects stay at the edge. Read from the source, not from memory."""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tsguard"

LEVELS = [
    ("words", "errors findings catalogue evidence report padding"),
    ("boundary", "yamlfile settings config store"),
    ("framework", "backend dataset subject provenance data"),
    ("measure", "probes laws expect"),
    ("judge", "checks comparison diagnosis gate"),
    ("run", "guard train repro render"),
    ("doors", "desk display opening api guarded commands doctor starter demo pytest_plugin cli __main__ __init__"),
]
LEVEL = {room: level for level, (_, rooms) in enumerate(LEVELS) for room in rooms.split()}
SIBLINGS_THAT_DO_NOT_KNOW_EACH_OTHER = {"train", "repro", "render"}
HEAVY = {"keras", "torch", "great_expectations", "pandas", "pyarrow", "numpy", "matplotlib"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """The first folder or file below tsguard/ that a module lives in."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path, *, top_only=False):
    """(module, name, line) of every import; TYPE_CHECKING blocks are left out, they run nowhere."""
    skipped = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(id(inner) for inner in ast.walk(node))
    nodes = tree_nodes(path, top_only=top_only)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name, node.lineno) for alias in node.names)


def tree_nodes(path, *, top_only):
    parsed = tree(path)

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if top_only and deeper:
                continue
            yield child
            yield from walk(child, deeper)

    return walk(parsed, inside=False)


def own_imports(path):
    for module, name, line in imports(path):
        if module == "tsguard" and name is not None:
            yield name, line
        elif module.startswith("tsguard."):
            yield module.split(".")[1], line


def test_every_room_has_a_level():
    unknown = {room(path) for path in FILES} - set(LEVEL)
    assert not unknown, f"rooms without a level: {sorted(unknown)}; give each its place in LEVELS and in the docs"


def test_no_import_points_upward():
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in FILES
        for target, line in own_imports(path)
        if target in LEVEL and LEVEL[target] > LEVEL[room(path)]
    ]
    assert not upward, "\n".join(upward)


def test_siblings_that_should_not_know_each_other_do_not():
    known = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path in FILES
        for target, line in own_imports(path)
        if {room(path), target} <= SIBLINGS_THAT_DO_NOT_KNOW_EACH_OTHER and room(path) != target
    ]
    assert not known, "\n".join(known)


def test_rooms_import_each_other_without_a_cycle():
    edges = {}
    for path in FILES:
        edges.setdefault(room(path), set()).update(t for t, _ in own_imports(path) if t in LEVEL and t != room(path))
    finished, stack = set(), []

    def visit(name):
        if name in stack:
            raise AssertionError(" → ".join([*stack[stack.index(name) :], name]))
        if name in finished:
            return
        stack.append(name)
        for target in sorted(edges.get(name, ())):
            visit(target)
        finished.add(stack.pop())

    edges.pop("__init__", None)  # the lazy table of names points everywhere by design
    for name in sorted(edges):
        visit(name)


def test_words_and_boundary_import_no_framework():
    heavy = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if LEVEL[room(path)] < 2
        for module, _, line in imports(path)
        if module.split(".")[0] in HEAVY
    ]
    assert not heavy, "\n".join(heavy)


def test_words_import_only_the_standard_library():
    import sys

    outside = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in FILES
        if LEVEL[room(path)] == 0
        for module, _, line in imports(path)
        if module.split(".")[0] not in {*sys.stdlib_module_names, "tsguard"}
    ]
    assert not outside, "\n".join(outside)


def calls(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def test_only_doors_print():
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        if LEVEL[room(path)] < len(LEVELS) - 1
        for name, node in calls(path)
        if name == "print" and isinstance(node.func, ast.Name)
    ]
    assert not printing, "\n".join(printing)


def opens_for_writing(node):
    modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    modes += [k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
    return any(isinstance(mode, str) and set(mode) & set("wax+") and set(mode) <= set("rwaxbt+") for mode in modes)


def test_only_the_store_writes_files():
    writers = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in FILES
        if room(path) != "store"
        for name, node in calls(path)
        if (name in {"write_text", "write_bytes", "mkdir", "unlink", "rmtree", "savetxt"} and not _on_the_store(node))
        or (name == "open" and opens_for_writing(node))
    ]
    assert not writers, "\n".join(writers)


def _on_the_store(node):
    """`folder.write_text(…)`, where folder is a RunFolder: the store itself."""
    target = node.func.value if isinstance(node.func, ast.Attribute) else None
    name = getattr(target, "id", getattr(target, "attr", ""))
    return name in {"folder", "_folder", "store", "run_folder"}


def test_only_the_backend_touches_global_seeds():
    seeding = {"seed", "manual_seed", "set_random_seed", "use_deterministic_algorithms", "set_state", "setstate"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in FILES
        if room(path) != "backend"
        for name, node in calls(path)
        if name in seeding and isinstance(node.func, ast.Attribute) and _is_global(node.func.value)
    ]
    assert not found, "\n".join(found)


def _is_global(value):
    return ast.unparse(value) in {
        "random",
        "np.random",
        "numpy.random",
        "torch",
        "torch.cuda",
        "keras.utils",
        "torch.random",
    }


@pytest.mark.parametrize("folder", ["models"])
def test_models_know_neither_tsguard_nor_torch(folder):
    for path in (ROOT / folder).rglob("*.py"):
        used = {module.split(".")[0] for module, _, _ in imports(path)}
        assert not used & {"tsguard", "torch"}, path


def test_every_module_opens_with_its_idea():
    silent = [str(path.relative_to(ROOT)) for path in FILES if not (ast.get_docstring(tree(path)) or "").strip()]
    assert not silent, silent


def test_nothing_machine_bound_is_in_the_repository():
    """No paths of a machine, no package-registry addresses."""
    words = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "py" + "pi.org", "files.python" + "hosted"]
    suffixes = {".py", ".md", ".toml", ".yaml", ".txt", ".html", ".css", ".cfg", ".json", ""}
    skipped = {
        ".git",
        ".venv",
        "build",
        "dist",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        "reports",
    }
    found = []
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        if skipped & set(relative.parts) or not path.is_file() or path.suffix not in suffixes:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{relative}: {word}" for word in words if word in text]
    assert not found, "\n".join(found)


def test_levels_are_documented():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in itertools.chain.from_iterable(rooms.split() for _, rooms in LEVELS):
        if not name.startswith("__"):
            assert name in text, f"docs/architecture.md does not mention {name}"
