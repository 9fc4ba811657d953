"""The README is true: its Python runs, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.S))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=_environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS"), done.stdout


def test_the_commands_of_the_readme_are_the_commands_there_are():
    import typer

    from tsguard.cli import app

    named = set(re.findall(r"^\| `tsguard (\w+)", README, flags=re.M))
    built = set(typer.main.get_command(app).commands)
    assert named <= built, named - built


def test_the_files_of_the_readme_are_there():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}
