"""A run that was killed ends with the bits of one that was not; what cannot be trusted is refused and left alone."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.train.job import end_state, session
from tsguard import cli
from tsguard.errors import Interrupted
from tsguard.findings import Status
from tsguard.train.checkpoint import FOLDER, stems


def tortured(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.train.job", folder, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_killed_at_random_steps_ends_bit_equal_to_one_that_was_not(tmp_path):
    for found in tortured(tmp_path, 3, 2, 2, "plain", "dataset"):
        assert found["kills"] == 2
        assert all(1 <= count <= WORST_LAG * 2 for count in found["recomputed"])
        assert found["different"] == 0, found


WORST_LAG = 2
"""A kill can meet the writing of a checkpoint: then the one before it is the last, and twice the interval is lost."""


@pytest.mark.slow
def test_more_than_twenty_kills_in_every_kind_of_training_leave_no_trace(tmp_path):
    rows = tortured(
        tmp_path, 6, 2, 4, "plain", "float16", "accumulate", "plateau", "dataset", "workers", "loader", "carried"
    )
    assert sum(row["kills"] for row in rows) >= 20
    assert sum(row["resumed"] for row in rows) >= 12  # a kill before the first checkpoint begins anew
    assert [row for row in rows if row["different"]] == []
    counts = [count for row in rows for count in row["recomputed"]]
    assert counts
    assert max(counts) <= WORST_LAG * 2


@pytest.fixture
def finished(tmp_path):
    """The folder of a run of two epochs, its end state, and the three files that it keeps."""
    folder = tmp_path / "run"
    one = session(str(folder), "plain", epochs=2, every=5)
    one.run()
    return folder, end_state(one.context.model)


def resumed(folder, name="plain", **options):
    one = session(str(folder), name, **{"epochs": 2, "every": 5, "resume": True, **options})
    report = one.run()
    return one, [f for f in report.findings if f.code == "resume-mismatch"]


def checkpoint_files(folder):
    return {file.name: file.read_bytes() for file in (folder / FOLDER).iterdir()}


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(finished, damage):
    folder, end = finished
    one = session(str(folder), "plain", epochs=2, every=5)
    last = stems(one.folder)[-1]
    file = folder / FOLDER / f"{last}.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    before = checkpoint_files(folder)
    one, refused = resumed(folder)
    assert [f.status for f in refused] == [Status.WARN]
    assert last in refused[0].message
    assert "damaged" in refused[0].message
    assert np.array_equal(end_state(one.context.model), end)
    after = checkpoint_files(folder)
    assert all(after.get(name) == content for name, content in before.items())


def test_a_torn_manifest_is_passed_over(finished):
    folder, end = finished
    one = session(str(folder), "plain", epochs=2, every=5)
    manifest = folder / FOLDER / f"{stems(one.folder)[-1]}.json"
    manifest.write_text(manifest.read_text()[:50])
    one, _ = resumed(folder)
    assert np.array_equal(end_state(one.context.model), end)


def test_checkpoints_of_another_training_are_refused_by_name_and_nothing_is_deleted(finished):
    folder, _ = finished
    before = checkpoint_files(folder)
    _, refused = resumed(folder, "accumulate")
    assert refused
    assert all("other optimizer" in f.message for f in refused)
    after = checkpoint_files(folder)
    assert all(after.get(name) == content for name, content in before.items())


def test_other_data_is_refused(finished, monkeypatch):
    folder, _ = finished
    from tests.train import job

    settings, data = job.program("plain")
    data["x"] = data["x"].copy()
    data["x"][3, 2] += 1.0
    monkeypatch.setattr(job, "program", lambda name: (settings, data))
    _, refused = resumed(folder)
    assert refused
    assert all(f.message.endswith("made with other data than this run has.") for f in refused)


def test_the_best_of_before_the_interruption_stay_the_best(finished):
    folder, _ = finished
    one, _ = resumed(folder, epochs=4)
    values = {stem: json.loads((folder / FOLDER / f"{stem}.json").read_text())["metrics"] for stem in stems(one.folder)}
    kept = sorted(found["val_loss"] for found in values.values() if "val_loss" in found)
    assert len(kept) >= 3
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert sum(event.get("kind") == "resume" for event in events) == 1


def test_a_finished_run_goes_on_to_the_bits_of_a_longer_one(tmp_path):
    ends = {}
    for name, lengths in {"whole": (4,), "extended": (2, 4)}.items():
        for epochs in lengths:
            one = session(str(tmp_path / name), "averaged", epochs=epochs, every=0, resume=epochs != lengths[0])
            report = one.run()
        ends[name] = end_state(one.context.model)
    assert np.array_equal(ends["whole"], ends["extended"])
    assert report.series["epoch/loss"].x == (0, 1, 2, 3)
    assert report.metrics["steps_recomputed"] == 0


def test_steps_are_numbered_through_a_resume_and_the_record_holds_all_of_them(tmp_path):
    folder = tmp_path / "stopped"
    one = session(str(folder), "plain", epochs=2, every=0, kill_at=8, number=signal.SIGTERM)
    with pytest.raises(Interrupted):
        one.run()
    one = session(str(folder), "plain", epochs=2, every=0, resume=True)
    report = one.run()
    assert one.guard.outcome.steps == 4
    assert report.series["loss"].x[-1] == 11


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_that_step_and_the_rest_is_trained_later(tmp_path, finished, number):
    _, end = finished
    folder = tmp_path / "stopped"
    one = session(str(folder), "plain", epochs=2, every=0, kill_at=8, number=number)
    with pytest.raises(Interrupted) as stopped:
        one.run()
    assert stopped.value.number == number
    assert stems(one.folder)[-1] == "step-00000008"
    one, refused = resumed(folder, every=0)
    assert refused == []
    assert np.array_equal(end_state(one.context.model), end)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_line_tells_an_interruption_by_its_exit_code(monkeypatch, capsys, number, code):
    def interrupted(**_):
        raise Interrupted(number)

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert "--resume" in capsys.readouterr().err
