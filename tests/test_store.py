"""The only writer: whole files, no escape from the folder, clear words where nothing can be written."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tsguard import store
from tsguard.errors import StoreError
from tsguard.report import Report
from tsguard.store import RunFolder, load_report, runs, tidy_name, writable_folder, write_whole


def test_a_run_is_a_folder_that_opens_again(tmp_path):
    folder = RunFolder.create(tmp_path, "my run/../x")
    assert folder.path.parent == tmp_path
    assert RunFolder.open(folder.path).run == folder.run
    assert [found.run.id for found in runs(tmp_path)] == [folder.run.id]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b"])
def test_no_name_leaves_the_folder(tmp_path, name):
    with pytest.raises(StoreError, match="inside the run's folder"):
        RunFolder.create(tmp_path, "run").write_text(name, "text")


@pytest.mark.parametrize("name", ["", "...", "/", "<b>", "наб", "a" * 300])
def test_every_name_becomes_a_folder_name(name):
    tidy = tidy_name(name)
    assert tidy
    assert "/" not in tidy
    assert not tidy.startswith(".")
    assert len(tidy) <= 60


def test_many_runs_of_one_name_at_once_do_not_meet(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: RunFolder.create(tmp_path, "same").path, range(40)))
    assert len(set(folders)) == 40


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_whole(target, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left"):
        write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_events_survive_a_kill_and_a_torn_line(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    code = (
        "import os, signal, sys; from tsguard.store import RunFolder\n"
        "journal = RunFolder.open(sys.argv[1]).journal()\n"
        "for step in range(5): journal.append({'step': step, 'loss': float('nan')})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder.path)], check=False)
    with folder.file(store.EVENTS).open("a") as stream:
        stream.write('{"step": 5, "lo')
    assert [event["step"] for event in folder.events()] == [0, 1, 2, 3, 4]


def test_a_full_disk_is_said_before_anything_starts(tmp_path):
    with pytest.raises(StoreError, match="MB free"):
        writable_folder(tmp_path, needs_mb=1e12)


def test_a_file_in_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "reports").write_text("")
    with pytest.raises(StoreError, match="can be written"):
        RunFolder.create(tmp_path / "reports", "run")


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        RunFolder.open(tmp_path / "nothing")


def test_a_report_is_found_by_folder_file_or_page(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    folder.save_report(Report(name="one"))
    folder.write_text("after.html", "")
    for place in (folder.path, folder.path / "report.json", folder.path / "after.html"):
        assert load_report(place).name == "one"


@pytest.mark.parametrize("text", ["{}", "[]", '{"id": "a"}', "{"])
def test_a_run_whose_manifest_is_torn_is_told_in_words(tmp_path, text):
    folder = RunFolder.create(tmp_path, "r")
    (folder.path / "run.json").write_text(text)
    with pytest.raises(StoreError, match="Expected"):
        RunFolder.open(folder.path)
    assert list(runs(tmp_path)) == []
