"""The terminal says the same as the page: at any width, in a pipe, and whatever names hold."""

import io

import pytest
from rich.console import Console

from tests.render.reports import HOSTILE, KINDS, hostile_report, train_report
from tsguard.comparison import compare
from tsguard.findings import Finding, Role, Status
from tsguard.render.html import page
from tsguard.render.terminal import show, show_comparison
from tsguard.report import Report, Verdict


def printed(work, *, width=80, terminal=False):
    stream = io.StringIO()
    work(Console(file=stream, width=width, force_terminal=terminal, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [20, 40, 100])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_wider_than_the_terminal(kind, width, terminal):
    lines = printed(lambda console: show(KINDS[kind](), console), width=width, terminal=terminal).splitlines()
    assert lines
    assert max(map(len, lines)) <= width


def test_cause_place_remedy_proof_and_reproduction_are_told():
    text = printed(lambda console: show(train_report(), console), width=200)
    for words in (
        "✕ forecaster: blocked", "✕ FAIL lr-too-high (cause)", "where: step 20, layer dense", "remedy: Divide the rate",
        "proof: with a hundredth", "reproduction: repro/repro.py",
    ):  # fmt: skip
        assert words in text, words
    assert text.index("lr-too-high") < text.index("below-baseline")


def test_findings_are_framed_on_a_terminal_and_plain_in_a_log():
    assert "╭" in printed(lambda console: show(train_report(), console), terminal=True)
    assert "╭" not in printed(lambda console: show(train_report(), console))


def test_names_are_no_markup_and_move_no_cursor():
    report = hostile_report().with_(name="[bold]x[/bold][/red]\x1b[2J")
    text = printed(lambda console: show(report, console), width=2000)
    assert "[bold]x[/bold][/red]" in text
    assert "[/red]" in text.split("where:")[1]
    assert "\x1b" not in text


def test_what_is_left_out_is_counted():
    text = printed(lambda console: show(train_report(), console, shown=1))
    assert "below-baseline" not in text
    assert "and 1 more in the page" in text


def test_a_preflight_says_what_its_checks_took_and_the_page_has_them_all():
    slow = Finding("no-learning", Status.PASS, Role.NOTE, "learned", check="one batch overfitted", seconds=2.5)
    quick = Finding("config-unknown-key", Status.WARN, Role.NOTE, "unread", check="settings [red]", seconds=0.25)
    again = Finding("off-plan", Status.PASS, Role.NOTE, "kept", check="settings [red]", seconds=0.25)
    never = Finding("pad-time", Status.NOT_RUN, Role.NOTE, "not asked: no timestamps", check="laws")
    report = Report(name="run", kind="check", findings=(quick, again, slow, never), verdict=Verdict(Status.PASS, ()))
    text = printed(lambda console: show(report, console), width=200)
    assert "2 checks took 2.8 s; the longest: one batch overfitted 2.5 s, settings [red] 0.2 s" in text
    document = page(report)
    table = document[document.index('id="asked"') : document.index('id="not-run"')]
    assert "2 checks took 2.8 s, the longest 2.5 s: one batch overfitted" in table
    assert table.index("one batch overfitted</td>") < table.index("settings [red]</td>")
    assert "warned" in table[table.index("settings [red]</td>") :]
    assert "laws" not in table


def test_reasons_that_no_finding_tells_are_listed():
    report = train_report().with_(verdict=Verdict("FAIL", ("artifact_mb = 900 is not < 500",)))
    assert "artifact_mb = 900" in printed(lambda console: show(report, console))


@pytest.mark.parametrize("width", [30, 120])
def test_a_comparison_fits_and_marks_the_winner(width):
    other = train_report().with_(name=HOSTILE, metrics={**train_report().metrics, "val_loss": 0.1, HOSTILE: 1.0})
    text = printed(lambda console: show_comparison(compare(train_report(), other), console), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "★" in text
    if width > 100:
        assert "0.1 ★" in text


def test_an_empty_report_says_that_it_could_not_be_evaluated():
    assert "could not be evaluated" in printed(lambda console: show(Report(name="r"), console))
