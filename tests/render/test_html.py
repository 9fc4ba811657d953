"""Pages hold what the report holds, escape what it does not mean as markup, and stay small."""

import json
import math
import re
from datetime import date
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.render.reports import (
    HOSTILE,
    KINDS,
    audit_report,
    check_report,
    counterexample,
    hostile_report,
    large_report,
    suite_report,
    train_report,
)
from tsguard import catalogue
from tsguard.comparison import compare
from tsguard.findings import Finding, Role, Status
from tsguard.gate import Gate
from tsguard.render import drawing, figures, html
from tsguard.render import words as words_of
from tsguard.render.decimate import POINTS_MAX, decimate
from tsguard.report import Report, Series, Verdict, loads

PAGE_MAX_BYTES = 1_000_000
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


class Outline(HTMLParser):
    """The elements, identifiers, text and scripts of a page; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.links, self.text, self.scripts, self.attributes = (
            [],
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "id" in named:
            self.ids.append(named["id"])
        if "href" in named:
            self.links.append(named["href"])
        if tag == "script":
            self.scripts.append((named.get("type", ""), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_report_gives_the_same_bytes(kind):
    assert html.page(KINDS[kind]()) == html.page(KINDS[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_one_whole_document(kind):
    text = html.page(KINDS[kind]())
    outline = Outline(text)
    assert text.startswith("<!doctype html>\n<html lang=")
    assert outline.tags.count("h1") == 1
    assert outline.tags.count("main") == 1
    assert len(outline.ids) == len(set(outline.ids)), "two elements share an id"
    missing = {link for link in outline.links if link.startswith("#")} - {f"#{name}" for name in outline.ids}
    assert not missing, f"links to nowhere: {missing}"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched(kind):
    text = html.page(KINDS[kind]())
    without_names = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"<link|<iframe|@import|url\((?!#)", without_names)
    for _, name, value in Outline(text).attributes:
        assert name not in ("src", "srcset", "action", "data", "poster") or value.startswith("data:"), (name, value)
        assert not (name in ("href", "xlink:href") and re.match(r"(?i)\s*(https?:|javascript:|//)", value or ""))


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedded_document_reads_back_as_the_report(kind):
    report = KINDS[kind]()
    found = [body for type_, body in Outline(html.page(report)).scripts if type_ == "application/json"]
    assert len(found) == 1
    assert Report.from_json(found[0]).to_json() == report.to_json()


def test_hostile_names_stay_text():
    text = html.page(hostile_report())
    outline = Outline(text)
    plain = Outline(html.page(train_report()))
    assert "img" not in outline.tags
    assert outline.tags.count("script") == plain.tags.count("script")
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
    assert "<script>alert(1)" in outline.words
    assert "{{ 7*7 }}" in outline.words
    assert "49" not in outline.words.split(HOSTILE[:10])[1][:60]


def test_hostile_names_stay_text_in_index_comparison_and_notebook():
    report = hostile_report()
    for text in (
        html.index([html.summary(report, "r/after.html")]),
        html.comparison(compare(report, hostile_report().with_(metrics={HOSTILE: 2.0}))),
        f"<main>{html.first_screen(report)}</main>",
    ):
        outline = Outline(text)
        assert "img" not in outline.tags
        assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
        assert "alert(1)" not in "".join(body for _, body in outline.scripts)
        assert "alert(1)" in outline.words


def test_a_link_to_a_reproduction_never_becomes_a_script():
    from tsguard.evidence import Evidence

    finding = catalogue.finding(
        "lr-too-high", "m", evidence=[Evidence("file", name="reproduction", file="javascript:alert(1)")]
    )
    text = html.page(Report(findings=(finding,)))
    assert not [link for link in Outline(text).links if link.lower().startswith("javascript:")]


def test_the_first_screen_says_verdict_why_and_what_to_do():
    report = check_report()
    outline = Outline(f"<main>{html.first_screen(report)}</main>")
    assert "Blocked" in outline.words
    assert catalogue.entry("pad-leak-value").title in outline.words
    assert report.causes[0].remedy in outline.words
    assert "would have taken about 42 min and cost about 1.25" in outline.words
    assert "artifact_mb = 900 is not < 500" in outline.words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("PASS", "Passed"),
        ("WARN", "Not enforced"),
        ("FAIL", "Blocked"),
        ("ERROR", "Could not"),
        ("NOT_RUN", "Could not"),
    ],
)
def test_every_verdict_is_told_in_words_shape_and_colour(status, words):
    text = html.first_screen(Report(name="r", verdict=Verdict(status, ("because",))))
    assert words in text
    assert words_of.MARKS[status] in text
    assert f'class="tsguard-report {status}"' in text


def test_findings_stand_causes_first_with_place_remedy_proof_and_reproduction():
    words = Outline(html.page(train_report())).words
    cause, symptom = words.index("loss grew a hundredfold"), words.index("worse than the mean")
    assert cause < symptom
    for part in ("dense", "What to do", "hundredth of the rate", "97 %", "repro/repro.py"):
        assert part in words, part


def test_what_passed_and_what_did_not_run_is_told_with_its_reason():
    words = Outline(html.page(check_report())).words
    assert "the loss of 8 batches is finite" in words
    assert "the model does not claim to be causal" in words
    assert "The check itself crashed" in words


def test_predicted_stands_beside_what_happened():
    words = Outline(html.page(train_report())).words
    assert re.search(r"duration\s+duration_min\s+3 min 00 s\s+2 min 30 s\s+1.2 ×\s+2 min 00 s", words)
    assert re.search(r"peak_mb\s+900 MB\s+880 MB\s+as foretold\s+800 MB", words)


def test_the_suite_page_lists_tests_and_the_audit_page_expectations():
    words = Outline(html.page(suite_report())).words
    assert "suites/test_padding.py" in words
    assert "E assert" in words
    words = Outline(html.page(audit_report())).words
    assert "ExpectColumnValuesToNotBeNull" in words
    assert "decimal comma in column load" in words


def test_a_series_of_nothing_but_nan_is_no_reason_to_fail():
    nan = Series([math.nan] * 30)
    report = train_report().with_(series=dict.fromkeys(train_report().series, nan), metrics={"r2": math.nan})
    assert "nan" in Outline(html.page(report)).words
    assert html.spark(nan.y) == ""


def drawn(report):
    """Every figure, whatever heading it stands under."""
    return [figure for _, group in figures.of_report(report) for figure in group]


DRAWN = ("loss", "loss/a", "loss/b", "memory_mb", "update_ratio", "grad_norm/a/k", "epoch/loss", "step_seconds")


@settings(max_examples=12)
@given(st.dictionaries(st.sampled_from(DRAWN), st.lists(st.floats(), max_size=6), min_size=1, max_size=3))
def test_any_numbers_can_be_drawn(series):
    report = Report(series={name: Series(values) for name, values in series.items()})
    for figure in drawn(report):
        assert figure.svg.count("<title") == 1


def test_every_figure_has_a_title_of_its_own_and_shares_no_identifier():
    made = drawn(train_report()) + drawn(audit_report())
    assert len(made) == 12
    seen = set()
    for figure in made:
        ids = set(re.findall(r'\bid="([^"]+)"', figure.svg))
        assert re.search(r'role="img" aria-labelledby="([^"]+)"><title id="\1">', figure.svg)
        assert not ids & seen
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', figure.svg))
        assert used <= ids
        seen |= ids


def test_figures_take_their_ink_from_the_page():
    for figure in drawn(train_report()):
        assert drawing.INK not in figure.svg
        assert "currentColor" in figure.svg
        assert "#000000" not in figure.svg


def test_trips_are_marked_in_the_loss():
    loss = next(figure for figure in drawn(train_report()) if figure.name == "loss")
    assert "step 20" in loss.svg


def test_a_counterexample_is_drawn_with_what_changed():
    words = Outline(html.page(Report(findings=(counterexample(),)))).words
    assert "7.5" in words
    assert "0.8" in words


def test_a_large_report_stays_small_and_says_where_the_rest_is():
    report = large_report(steps=3000)
    text = html.page(report)
    assert len(text.encode()) <= PAGE_MAX_BYTES
    assert "report.json" in text
    embedded = next(body for type_, body in Outline(text).scripts if type_ == "application/json")
    assert len(loads(embedded)["findings"]) == len(report.findings)


def test_the_index_shows_the_newest_first_and_reads_without_scripts():
    rows = [html.summary(train_report().with_(name=f"try-{n}"), f"run-{n}/after.html") for n in range(3)]
    rows = [{**row, "started": f"2026-01-0{n + 1}"} for n, row in enumerate(rows)]
    words = Outline(html.index(rows)).words
    assert words.index("try-2") < words.index("try-1") < words.index("try-0")
    assert "3 runs" in words
    assert Outline(html.index([])).tags.count("h1") == 1


def test_an_odd_summary_does_not_cost_the_list():
    words = Outline(html.index([{"name": "old", "verdict": "?", "kind": "stage"}, [], {}])).words
    assert "2 runs" in words
    assert "old" in words


def test_summaries_survive_their_file():
    row = html.summary(train_report().with_(metrics={"loss": math.nan}), "x/after.html")
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["loss"] is None


def test_a_comparison_names_winner_settings_and_what_matters():
    better = train_report().with_(name="other", metrics={**train_report().metrics, "val_loss": 0.1})
    words = Outline(html.comparison(compare(train_report(), better))).words
    assert re.search(r"val_loss\s+0.3\s+0.1 ★", words)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=400), st.integers(4, 60))
def test_decimation_keeps_extremes_order_and_bound(y, points):
    x = [float(index) for index in range(len(y))]
    few_x, few_y = decimate(x, y, points=points)
    finite = [value for value in y if math.isfinite(value)]
    assert len(few_x) == len(few_y) <= max(points, 1)
    assert few_x == sorted(set(few_x))
    assert all(y[int(at)] == value or value != value for at, value in zip(few_x, few_y, strict=True))
    if finite:
        kept = [value for value in few_y if math.isfinite(value)]
        assert (min(kept), max(kept)) == (min(finite), max(finite))


def test_a_short_series_is_left_alone():
    assert decimate([0.0, 1.0], [math.nan, 2.0])[0] == [0.0, 1.0]
    assert len(decimate(range(10**5), [0.0] * 10**5)[0]) <= POINTS_MAX


def test_earlier_reports_are_held_against_the_page():
    before = train_report().with_(metrics={"val_loss": 0.9}, findings=())
    words = Outline(html.page(train_report(), earlier={"the run before": before})).words
    assert "Against the run before" in words
    assert re.search(r"lr-too-high\s+–\s+FAIL", words)


def test_checks_in_a_row_are_one_stop_of_the_course():
    from tsguard.render import tables

    stops = tables.timeline(check_report().timeline)
    assert [stop.text for stop in stops] == ["preflight started", "29 checks", "gate: FAIL"]
    assert len(stops[1].within) == 29


def test_classes_stand_with_their_recall_and_the_majority():
    from tsguard.render import tables

    found = tables.confusion(train_report())
    assert [round(row.recall, 2) for row in found.rows] == [0.93, 0.74, 0.0]
    assert (found.majority, round(found.share, 2), round(found.right, 2)) == ("0", 0.54, 0.75)
    assert found.never == ()
    assert tables.confusion(Report(figures={"confusion": [[1, 2]]})) is None


def test_a_symptom_stands_beneath_the_cause_that_explains_it_and_nowhere_else():
    report = train_report()
    outline = Outline(html.page(report))
    assert outline.words.count("The loss ended a hundred times as high") == 1
    assert "It shows as" in outline.words
    assert outline.words.index("It shows as") < outline.words.index("worse than the mean")
    assert "check-divergence" in outline.ids


def test_the_same_symptom_told_twice_is_one_card():
    twice = tuple(catalogue.finding("divergence", f"words {n}", where={"step": n}) for n in range(2))
    outline = Outline(html.page(Report(findings=twice, verdict=Verdict("FAIL", tuple(f.message for f in twice)))))
    assert [value for tag, name, value in outline.attributes if tag == "article" and name == "id"] == [
        "check-divergence"
    ]
    assert "Words 1" in outline.words


def test_the_first_screen_does_not_repeat_what_stands_beneath_the_cause():
    report = train_report().with_(verdict=Verdict("FAIL", tuple(f.message for f in train_report().findings)))
    words = Outline(html.first_screen(report)).words
    assert "ended a hundred times" not in words
    assert catalogue.entry("below-baseline").title in words


def test_a_run_that_passed_says_what_came_of_it():
    report = train_report().with_(findings=(), verdict=Verdict("PASS"))
    words = Outline(html.page(report)).words
    assert "nothing stands against this run" in words
    assert "val_loss 0.3, R² 0.41 after 6 epochs and 60 steps." in words
    assert "Training took 3 min 00 s; about 2 min 30 s was forecast." in words


def test_a_code_that_the_catalogue_does_not_know_is_drawn_all_the_same():
    own = Finding("own-check", Status.FAIL, Role.CAUSE, "ours", remedy="mend")
    words = Outline(html.page(Report(findings=(own, Finding("other-check", Status.PASS, Role.NOTE, "fine"))))).words
    assert "Own check" in words


def test_the_course_of_a_run_is_told_with_epochs_folded_and_trips_marked():
    words = Outline(html.page(train_report())).words
    for part in ("5 epochs", "✕ loss grew, step 20", "↺ rolled back"):
        assert part in words, part


def test_the_time_is_shared_out_among_preflight_training_and_judgement():
    from tsguard.render import tables

    phases = tables.phases(train_report().timeline)
    assert [phase.name for phase in phases] == ["preflight", "training", "judgement"]
    assert sum(phase.share for phase in phases) == pytest.approx(1.0)
    assert tables.phases(check_report().timeline) == ()


def test_a_suite_shows_findings_beside_the_tests_of_their_file_failures_first():
    outline = Outline(html.page(suite_report()))
    words = outline.words.split("0.8 when only the padded", 1)[1]  # the first screen told it once
    assert words.index("suites/test_padding.py") < words.index("0.8 when only the padded") < words.index("test_leak")
    assert words.index("test_leak") < words.index("suites/test_data.py") < words.index("no data")
    assert "1 failed, 1 passed, 1.8 s" in words


def test_metrics_of_the_parts_stand_side_by_side_and_nothing_twice():
    from tsguard.render import metrics

    table = metrics.learned(train_report())
    assert table.columns == ("validation", "training", "measured")
    rows = {row.name: row.values for row in table.rows}
    assert rows["loss"] == (0.3, 0.2, None)
    assert rows["r2"] == (0.41, 0.6, None)
    assert rows["std_ratio"] == (None, None, 0.5)
    assert table.rows[0].name == "loss"


def test_a_further_validation_set_has_a_column_and_an_output_has_none():
    from tsguard.render import metrics

    found = {"val/r2": 0.5, "train/r2": 0.6, "night/r2": 0.1, "val/head/r2": 0.2, "train/head/r2": 0.3, "head/r2": 0.2}
    table = metrics.learned(Report(metrics=found))
    assert table.columns[:3] == ("validation", "training", "night")
    assert {row.name: row.values[2] for row in table.rows}["r2"] == 0.1


def test_what_a_run_takes_is_told_in_its_units():
    from tsguard.render.metrics import quantity

    told = {"duration_min": 0.5, "peak_mb": 1234.5, "data_wait_share": 0.051, "gpu_used": 0.0, "weights_mb": 0.03}
    words = [quantity(name, value) for name, value in told.items()]
    assert words == ["30.0 s", "1,234 MB", "5.1 %", "no", "0.03 MB"]
    assert quantity("duration_min", "25..50") == "25..50"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.004, "4 ms"), (1.26, "1.3 s"), (99.0, "99.0 s"),
     (119.7, "2 min 00 s"), (1800, "30 min"), (7320, "2 h 02 min"), (math.inf, "–")],
)  # fmt: skip
def test_time_is_told_in_the_unit_that_people_use(seconds, told):
    assert words_of.span(seconds) == told


def test_a_long_message_is_told_by_its_first_sentence_where_there_is_room_for_one():
    message = "the value 1.5 of `x` left. " + "Then much more was said about it. " * 10
    assert words_of.gist(message) == "the value 1.5 of `x` left."
    assert words_of.gist("short. Whole.") == "short. Whole."


def test_answers_on_the_way_are_drawn_and_a_refusal_is_told():
    names = [figure.name for figure in drawn(train_report())]
    assert {"quality", "histograms", "courses", "idle", "memory"} <= set(names)
    refused = train_report().with_(figures={"snapshots_note": "RuntimeError: no inference"})
    assert "RuntimeError: no inference" in Outline(html.page(refused)).words


def test_activations_are_drawn_where_the_guard_listened():
    series = {f"activation_{kind}/m/dense_{n}": Series([0.1 * n, 0.2]) for kind in ("zeros", "std") for n in range(3)}
    assert [figure.name for figure in drawn(Report(series=series))] == ["activation-zeros", "activation-std"]


@pytest.mark.parametrize(
    "odd",
    [
        {"snapshots": [{}]}, {"snapshots": [{"epochs": 1, "predicted": [1], "true": [1, 2]}]}, {"snapshots": "no"},
        {"courses": [{}]}, {"courses": {}}, {"confusion": {"counts": [[1], [2]]}}, {"confusion": []},
        {"predicted_true": {"true": [], "predicted": []}}, {"missing": {"rows": [], "share": {}}},
    ],
)  # fmt: skip
def test_figures_of_another_version_cost_no_page(odd):
    assert "</html>" in html.page(Report(figures=odd))


def test_two_checks_that_name_one_line_of_code_are_one_failure():
    def cause(message, line):
        where = {"file": "loss.py", "line": line}
        return catalogue.finding("loss-empty-selection", message, where=where, status="FAIL", role="cause")

    findings = (cause("first words", 4), cause("second words", 4), cause("elsewhere", 9))
    outline = Outline(html.page(Report(findings=findings)))
    assert outline.tags.count("article") == 2
    assert "Also told as" in outline.words
    assert "Second words" in outline.words


@pytest.mark.parametrize("role", ["cause", "note"])
def test_a_waiver_shows_with_its_reason_and_its_end(role):
    failed = Finding("data-volume", "FAIL", role, "samples: received 160. Declared 999.")
    report = Report(kind="train", name="r", findings=(failed, Finding("data-scale", "PASS", "note", "fine")))
    waiver = {"code": "data-volume", "reason": "the short file, on purpose", "until": "2030-01-01"}
    verdict = Gate.of({"waivers": [waiver]}).judge(report, today=date(2026, 1, 1))
    shown = html.page(report.with_(verdict=verdict)).split("<script")[0]
    assert "waived until 2030-01-01: the short file, on purpose" in shown
    assert "with 1 failure waived" in shown
    assert "nothing stands against" not in shown


def test_what_a_gate_noted_of_a_run_that_passed_shows():
    series = {"epoch/loss": Series((1.0,))}
    report = Report(kind="train", findings=(Finding("data-scale", "PASS", "note", "fine"),), series=series)
    verdict = Gate.of({"loss": "< 1 after epoch 30"}).judge(report, today=date(2026, 1, 1))
    assert "the run did not get that far" in html.page(report.with_(verdict=verdict)).split("<script")[0]
