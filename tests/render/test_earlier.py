"""A run's page is held against its own page before the run and the last run of the same name."""

import re

from tests.render.reports import check_report, train_report
from tsguard.desk import written
from tsguard.store import RunFolder


def test_the_page_after_the_run_tells_what_changed_since_before_and_since_the_last_run(tmp_path):
    first = train_report().with_(metrics={"val_loss": 0.9}, series={}, findings=())
    written(first, RunFolder.create(tmp_path, "forecaster"))
    folder = RunFolder.create(tmp_path, "forecaster")
    before = written(check_report(), folder)
    assert "Against" not in before.path.read_text(encoding="utf-8")
    after = written(train_report().with_(series={}), folder).path.read_text(encoding="utf-8")
    assert "Against the page before the run" in after
    assert "Against the run before" in after
    told = after.split("Against the run before</h2>")[1]
    assert "0.9" in told
    assert re.search(r"0\.3 <span[^>]*>★", told)


def test_a_broken_neighbour_is_left_out(tmp_path):
    folder = RunFolder.create(tmp_path, "forecaster")
    other = RunFolder.create(tmp_path, "forecaster")
    other.write_text("summary.json", '{"name": "forecaster", "kind": "train", "started": "2026"}')
    other.write_text("report.json", "{")
    assert "Against the run before" not in written(train_report(), folder).path.read_text(encoding="utf-8")
