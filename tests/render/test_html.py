"""Pages hold what the report holds, escape what it does not mean as markup, and stay small."""

import json
import math
import re
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
