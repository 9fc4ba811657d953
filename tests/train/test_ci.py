"""What runs in other people's CI and on rented machines is run here: the scripts themselves, with their exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "tsguard"
RENTED = ROOT / ".ci" / "rented"

MODEL = """
import keras, numpy as np, time
def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
def data(nan=False):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = x[:, :1] * 2
    if nan:
        x[5, 2] = np.nan
    return dict(x=x, y=y, validation_data=(x[:16] + 0.1, y[:16]))
"""
RUN = """
name: hosted
model: {use: "hosted_model:build"}
data: {use: "hosted_model:data"}
check: {budget_s: 4}
guard: {diagnose: false, repro: false}
train: {epochs: 3, batch_size: 16}
gates: {val_loss: "< 100"}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "hosted_model.py").write_text(MODEL)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def environment(**more):
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}
    return {**kept, "PYTHONPATH": str(ROOT), "TSGUARD_PYTHON": sys.executable, **more}


def script(path, *arguments, cwd, **env):
    return subprocess.run(
        [str(path), *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_action_hands_every_input_to_its_script_and_no_input_becomes_code():
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    step = action["runs"]["steps"][0]
    handed = set(re.findall(r"inputs\.([\w-]+)", json.dumps(step["env"])))
    assert handed == set(action["inputs"])
    assert "${{ inputs" not in step["run"]
    text = (ACTION / "run.sh").read_text()
    assert {f"TSGUARD_{name.upper()}" for name in action["inputs"]} == set(re.findall(r"TSGUARD_[A-Z]+", text)) & set(
        step["env"]
    )
    for file in (ACTION / "run.sh", RENTED / "entry"):
        assert os.access(file, os.X_OK), file
        assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0


@pytest.mark.slow
def test_the_action_checks_a_pull_request_on_the_cpu(project):
    summary, output = project / "summary.md", project / "output.txt"
    done = script(
        ACTION / "run.sh", cwd=project, GITHUB_STEP_SUMMARY=str(summary), GITHUB_OUTPUT=str(output),
        TSGUARD_SET="train.epochs=2\ndata.args={nan: true}\n",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "data-nonfinite" in summary.read_text()
    assert summary.stat().st_size < 900_000
    told = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert 1 <= len(told) <= 10
    made = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert made["exit-code"] == "1"
    folder = project / made["folder"]
    assert {"junit.xml", "report.json", "before.html"} <= {file.name for file in folder.iterdir()}


@pytest.mark.slow
def test_the_action_trains_behind_the_gate_and_holds_it_against_an_accepted_run(project):
    output = project / "output.txt"
    env = {"TSGUARD_COMMAND": "train", "GITHUB_OUTPUT": str(output)}
    assert script(ACTION / "run.sh", cwd=project, **env).returncode == 0
    first = dict(line.split("=", 1) for line in output.read_text().splitlines())["folder"]
    env |= {"TSGUARD_BASELINE": first, "TSGUARD_SET": "gates={val_loss: '<= 0.5 x baseline'}"}
    again = script(ACTION / "run.sh", cwd=project, **env)
    assert again.returncode == 1
    assert "baseline" in again.stdout


def test_the_action_takes_two_commands(project):
    done = script(ACTION / "run.sh", cwd=project, TSGUARD_COMMAND="demo; echo no")
    assert done.returncode == 2
    assert "Expected check or train" in done.stderr


def test_a_key_as_an_argument_is_refused(project):
    done = script(RENTED / "entry", "run.yaml", "--set", "trackers.0.args.api_key=abc", cwd=project)
    assert done.returncode == 2
    assert "in the environment" in done.stderr


@pytest.mark.slow
def test_a_rented_run_trains_writes_pages_and_tells_how_it_ended(project):
    done = script(RENTED / "entry", "run.yaml", cwd=project, TSGUARD_DONE="echo DONE")
    assert done.returncode == 0, done.stderr
    folder, code = re.search(r"DONE (\S+) (\d+)", done.stdout).groups()
    assert code == "0"
    assert (project / folder / "after.html").exists()
    assert "epoch 3/3" in done.stderr
    lacking = script(RENTED / "entry", cwd=project, TSGUARD_NEEDS_GPU="1", CUDA_VISIBLE_DEVICES="")
    assert lacking.returncode == 3
    assert "Nothing was trained" in lacking.stderr


@pytest.mark.slow
def test_a_rented_run_that_is_told_to_stop_saves_and_is_taken_up_again(project):
    (project / "run.yaml").write_text(RUN.replace("epochs: 3", "epochs: 2000"))
    began = subprocess.Popen(
        [str(RENTED / "entry")],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in began.stderr:
        if "epoch 2/" in line:
            break
    began.send_signal(signal.SIGTERM)
    began.communicate(timeout=120)
    assert began.returncode == 143
    (folder,) = (path for path in (project / "reports").iterdir() if path.is_dir())
    made = max(json.loads(file.read_text())["epoch"] for file in (folder / "checkpoints").glob("*.json"))
    done = script(RENTED / "entry", "run.yaml", "--set", f"train.epochs={made + 2}", cwd=project)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert sum(event.get("kind") == "resume" for event in events) == 1
    assert [path for path in (project / "reports").iterdir() if path.is_dir()] == [folder]


@pytest.mark.slow
def test_the_page_of_a_run_that_was_killed_says_so(project):
    (project / "run.yaml").write_text(RUN.replace("epochs: 3", "epochs: 5000"))
    command = [sys.executable, "-m", "tsguard", "train", "run.yaml"]
    began = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    for line in began.stderr:
        if "epoch 2/" in line:
            time.sleep(1)
            break
    began.kill()
    began.communicate(timeout=60)
    (folder,) = (path for path in (project / "reports").iterdir() if path.is_dir())
    done = subprocess.run(
        [sys.executable, "-m", "tsguard", "report", str(folder), "--json"], cwd=project, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert "ended without a report, after step" in json.dumps(report["findings"])
    assert len(report["series"]["loss"]["y"]) > 4
