"""A built wheel holds tsguard and nothing else, and works in an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_tsguard_only_and_runs_in_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path]
    subprocess.run([str(word) for word in build], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("tsguard-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tsguard"}
    for needed in (
        "tsguard/py.typed",
        "tsguard/catalogue.toml",
        "tsguard/render/templates/report.html",
        "tsguard/repro/templates/repro.py.j2",
        "tsguard/demo/sick.yaml",
        "tsguard/starter/project/run.yaml.txt",
        "tsguard/starter/project/suites/test_run.py.txt",
    ):
        assert needed in names
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for command in (["--version"], ["doctor"], ["explain", "lr-too-high"], ["init"]):
        done = subprocess.run(
            [sys.executable, "-m", "tsguard", *command], cwd=empty, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (empty / "suites" / "test_run.py").is_file()


@pytest.mark.slow
def test_the_demo_blocks_the_sick_run_and_trains_the_mended_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tsguard", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loss-empty-selection" in done.stdout
    (sick,) = (tmp_path / "reports").glob("demo-sick-*")
    (mended,) = (tmp_path / "reports").glob("demo-mended-*")
    assert (sick / "before.html").is_file()
    assert (sick / "repro" / "repro.py").is_file()
    assert not (sick / "after.html").exists()
    assert (mended / "after.html").is_file()
    assert (tmp_path / "reports" / "index.html").is_file()
