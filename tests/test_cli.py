"""The command line: exit codes, words for mistakes, and nothing heavy at the door."""

import inspect
import json
import os
import subprocess
import sys

import pytest

from tsguard import cli

MODEL = """
import os
os.environ.setdefault("KERAS_BACKEND", "torch")
import keras, numpy as np
def build(compiled=True, sick=False):
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(3), keras.layers.Dense(1)])
    if compiled:
        model.compile("adam", "mse")
    return model
def data(samples=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 4, 2)).astype("float32")
    y = x.mean(axis=(1, 2), keepdims=False)[:, None]
    return dict(x=x[8:], y=y[8:], validation_data=(x[:8], y[:8]))
"""


def tsguard(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tsguard", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "run.yaml").write_text("name: r\nmodel: {use: 'my_model:build'}\ndata: {use: 'my_model:data'}\n")
    return tmp_path


def test_explain_says_what_a_code_means(tmp_path):
    done = tsguard("explain", "lr-too-high", cwd=tmp_path)
    assert done.returncode == 0
    assert "How to mend it" in done.stdout
    assert json.loads(tsguard("explain", "lr-too-high", "--json", cwd=tmp_path).stdout)["role"] == "cause"
    assert tsguard("explain", cwd=tmp_path).stdout.count("\n") > 70


def test_version_and_help_import_nothing_heavy(tmp_path):
    code = (
        "import sys, runpy\nsys.argv = ['tsguard', '--help']\n"
        "try:\n runpy.run_module('tsguard', run_name='__main__')\nexcept SystemExit: pass\n"
        "heavy = {'keras', 'torch', 'great_expectations', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tsguard("--version", cwd=tmp_path).stdout.startswith("tsguard ")


def test_importing_the_package_imports_no_framework():
    code = "import tsguard, sys; assert not {'keras', 'torch', 'numpy'} & set(sys.modules); tsguard.Padding()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_loading_the_pytest_plugin_imports_no_framework():
    code = "import tsguard.pytest_plugin, sys; assert not {'keras', 'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "does not exist"),
        ("", "an empty file"),
        ("- a\n", "a list"),
        ("name: r\nmodel: {use: 'a:b'}\ntraining: {num_epochs: 3}\n", "did you mean train.epochs?"),
        ("name: r\nmodel: {use: 'a:b'}\ntrain: {epochs: many}\n", "run.yaml:3: train.epochs"),
        ("name: r\nmodel: {use: 'not_there:build'}\n", "not_there"),
        ("name: r\nmodel: {use: 'my_model:build', args: {compiled: false}}\n", "not compiled"),
        ("name: r\nmodel: {use: 'my_model:bild'}\n", "build"),
        ("name: r\nmodel: {use: 'my_model:build'}\ngates: {r2: good}\n", "gates.r2"),
    ],
)
def test_bad_input_exits_2_with_words_and_without_a_traceback(project, text, expected):
    path = project / "run.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = tsguard("check", path, cwd=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_folder_exits_2(project):
    (project / "reports").write_text("a file where a folder should be")
    done = tsguard("check", "run.yaml", cwd=project)
    assert done.returncode == 2
    assert "can be written" in done.stderr


def test_usage_errors_exit_2(tmp_path):
    assert tsguard("check", cwd=tmp_path).returncode == 2
    assert tsguard("no-such-command", cwd=tmp_path).returncode == 2


def test_what_is_no_run_exits_2(tmp_path):
    done = tsguard("report", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "run.json" in done.stderr


@pytest.mark.slow
def test_a_healthy_run_is_checked_and_trained_with_exit_0(project):
    checked = tsguard("check", "run.yaml", cwd=project)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = tsguard("train", "run.yaml", "--set", "train.epochs=2", "--json", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["metrics"]["val_loss"] > 0
    folder = project / report["run"]["folder"]
    for name in (
        "run.json",
        "config.yaml",
        "events.jsonl",
        "report.json",
        "before.html",
        "after.html",
        "history.parquet",
    ):
        assert (folder / name).is_file(), name
    again = tsguard("report", folder, cwd=project)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_gate_that_is_missed_exits_1_and_one_that_cannot_be_judged_3(project):
    assert tsguard("train", "run.yaml", "--set", "gates={val_loss: '< 1e-9'}", cwd=project).returncode == 1
    assert tsguard("train", "run.yaml", "--set", "gates={no_such_metric: '> 0'}", cwd=project).returncode == 3


@pytest.mark.slow
def test_doctor_knows_this_machine(tmp_path):
    done = tsguard("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["versions"]["keras"]


def test_init_writes_a_start_and_keeps_what_is_there(tmp_path):
    (tmp_path / "run.yaml").write_text("mine")
    done = tsguard("init", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "run.yaml").read_text() == "mine"
    assert "kept  run.yaml" in done.stdout
    assert (tmp_path / "suites" / "test_run.py").is_file()


@pytest.mark.slow
def test_the_started_project_checks_and_its_suite_runs(tmp_path):
    assert tsguard("init", cwd=tmp_path).returncode == 0
    done = tsguard("check", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    suite = subprocess.run(
        [sys.executable, "-m", "pytest", "suites", "--run", "run.yaml", "--report", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert suite.returncode == 0, suite.stdout + suite.stderr
    assert list((tmp_path / "reports").glob("suites-*/suite.html"))


def test_runs_are_listed_with_pins_and_cleaned_without_them(tmp_path, capsys):
    from tests.render.reports import train_report
    from tsguard import cli
    from tsguard.desk import written
    from tsguard.store import RunFolder

    folders = [RunFolder.create(tmp_path, "r") for _ in range(4)]
    for folder in folders[:3]:
        written(train_report().with_(series={}, figures={}), folder)
    (folders[0].path / "pinned").touch()
    cli.list_runs(tmp_path, json=False)
    told = capsys.readouterr().out
    assert f"{folders[0].path} (pinned)" in told
    assert told.count("✕ FAIL") == 3
    assert "○ ENDED" in told
    cli.list_runs(tmp_path, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["pinned"] for row in rows] == [True, False, False, False]
    assert {row["stage"] for row in rows[:3]} == {"train"}
    cli.clean_runs(tmp_path, keep=1)
    assert [folder.path.exists() for folder in folders] == [True, False, False, True]
    assert "2 removed, 2 kept" in capsys.readouterr().out
    assert folders[1].path.name not in (tmp_path / "index.html").read_text()


def test_every_command_speaks_to_machines(tmp_path):
    commands = [*cli.app.registered_commands, *cli.sets.registered_commands, *cli.runs.registered_commands]
    for command in commands:
        assert "json" in inspect.signature(command.callback).parameters, command.callback.__name__


def test_a_set_a_proposal_and_what_was_cleaned_are_told_as_json(tmp_path):
    told = json.loads(tsguard("data", "where", "vix", "--json", cwd=tmp_path, TSGUARD_DATA=str(tmp_path)).stdout)
    assert (told["name"], told["here"]) == ("vix", "absent")
    assert "Fetch it" in told["where"]
    assert json.loads(tsguard("runs", "clean", "--json", cwd=tmp_path).stdout) == {"removed": [], "kept": 0}
    assert tsguard("runs", "clean", "--keep", -1, cwd=tmp_path).returncode == 2
    (tmp_path / "a.csv").write_text("load\n" + "\n".join(map(str, range(30))))
    done = tsguard("audit", "a.csv", "--propose", "s.json", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"suite": "s.json"}
