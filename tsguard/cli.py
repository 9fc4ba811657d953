"""The command line. Parses, calls, prints and exits; everything else lives below.

Exit codes: 0 the gate passed; 1 the gate failed; 2 usage or configuration; 3 could not evaluate; 130/143 interrupted.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsguard import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from tsguard.report import Report

app = typer.Typer(
    name="tsguard",
    help="Tested training for Keras 3 models on the PyTorch backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for runs (default: as in RUN.yaml, else reports/).")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Use deterministic kernels only.")]


def main() -> None:
    """Run a command; a user's mistake is printed without a traceback and exits 2."""
    from tsguard.errors import Interrupted, TsguardError

    try:
        app(standalone_mode=True)
    except TsguardError as mistake:
        typer.echo(f"tsguard: {mistake}", err=True)
        sys.exit(2)
    except Exception:  # the user's own code, or ours: either way the whole traceback, and "could not evaluate"
        traceback.print_exc()
        sys.exit(3)
    except Interrupted as stopped:
        typer.echo(f"tsguard: {stopped}. Go on with `--resume`.", err=True)
        sys.exit(128 + stopped.number)
    except KeyboardInterrupt:
        typer.echo("tsguard: interrupted", err=True)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"tsguard {__version__}")
        raise typer.Exit


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="A finding code; without one, all of them are listed.")] = None,
    json: Json = False,
) -> None:
    """What a finding means, why it happens, and how it is mended."""
    import dataclasses

    from tsguard import catalogue

    if code is None:
        if json:
            _print_json([dataclasses.asdict(entry) for entry in catalogue.entries().values()])
            return
        for group in catalogue.GROUPS:
            typer.echo(f"{group}:")
            for entry in catalogue.entries().values():
                if entry.group == group:
                    typer.echo(f"  {entry.code:<26} {entry.title}")
        return
    entry = catalogue.entry(code)
    if json:
        _print_json(dataclasses.asdict(entry))
        return
    typer.echo(f"{entry.code}: {entry.title}")
    typer.echo(f"  usually a {entry.role}, {entry.severity} by default")
    for label, text in (("What it means", entry.means), ("Why it happens", entry.why), ("How to mend it", entry.mend)):
        typer.echo(f"\n{label}\n  {text}")


@app.command()
def doctor(json: Json = False) -> None:
    """What is installed, which device, what would not work, and what to install."""
    from tsguard.doctor import examine

    found = examine()
    if json:
        _print_json(found)
    else:
        for line in found["lines"]:
            typer.echo(line)
    raise typer.Exit(0 if found["usable"] else 3)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    json: Json = False,
) -> None:
    """Write a starting run.yaml and suites/ into your own project. Existing files are left alone."""
    from tsguard.starter import write_starter

    files = write_starter(folder)
    if json:
        _print_json(files)
        return
    for name, written in files.items():
        typer.echo(f"{'wrote' if written else 'kept '} {name}")
    typer.echo("next: edit run.yaml, then `tsguard check run.yaml`")


@app.command()
def check(
    run: RunFile,
    set_: Set = None,
    out: Out = None,
    twice: Annotated[bool, typer.Option("--twice", help="Train a few steps twice and compare every bit.")] = False,
    deterministic: Deterministic = False,
    json: Json = False,
) -> None:
    """Preflight: ask every check, write the page, gate."""
    from tsguard import commands

    report = commands.check(run, changes=_changes(set_, deterministic), out=out, twice=twice, progress=_progress(json))
    _finish(report, json)


@app.command()
def train(
    run: RunFile,
    set_: Set = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest run of this name.")] = False,
    continue_: Annotated[
        bool, typer.Option("--continue", help="Like --resume if that run was interrupted, else begin a new one.")
    ] = False,
    deterministic: Deterministic = False,
    debug: Annotated[bool, typer.Option("--debug", help="One epoch of a few batches, looked into closely.")] = False,
    production: Annotated[
        bool, typer.Option("--production", help="Insist on gates; frequent checkpoints, recovery from bad batches.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Preflight, gate, guarded training, judgement, gate; writes both pages."""
    from tsguard import commands
    from tsguard.display import display
    from tsguard.errors import ConfigError

    if debug and production:
        raise ConfigError("tsguard train: received --debug and --production. Expected one of them. Leave one out.")
    with display(quiet=quiet or json) as shown:
        report = commands.train(
            run,
            changes=_changes(set_, deterministic),
            out=out,
            resume="interrupted" if continue_ else resume,
            profile="debug" if debug else "production" if production else None,
            progress=shown.told,
            follow=shown.follow,
        )
    _finish(report, json)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a trained run.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A table, a .npz or .npy file, or module:function.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Where to: .npz or .parquet (default: RUN/predictions.npz).")
    ] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="best, last, or the name of one.")] = "best",
    json: Json = False,
) -> None:
    """Predictions of a trained run from one of its checkpoints, in the units of its targets."""
    from tsguard import commands

    made = commands.predict(run, data, to=to, checkpoint=checkpoint)
    if json:
        _print_json(made)
    else:
        typer.echo(f"{made['file']}: {made['rows']:,} rows from checkpoint {made['checkpoint']}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its report.json.")], json: Json = False
) -> None:
    """Write the pages of a run again, also of one that died."""
    from tsguard import commands

    _finish(commands.rewrite(run), json, gate=False)


@app.command()
def diff(
    runs: Annotated[list[Path], typer.Argument(metavar="A B [C…]", help="Folders of runs, or their report.json.")],
    page: Annotated[Path | None, typer.Option("--page", help="Write the comparison as a page here.")] = None,
    json: Json = False,
) -> None:
    """Runs side by side: metrics with the winner of each, settings, environment, findings."""
    from tsguard import api
    from tsguard.errors import ConfigError

    if len(runs) < 2:
        raise ConfigError("tsguard diff: received one run. Expected two or more. Name the runs to compare.")
    found = api.compare(*runs)
    if page is not None:
        from tsguard.desk import save_comparison

        typer.echo(f"wrote {save_comparison(found, page)}", err=True)
    if json:
        from tsguard.report import fields_of

        _print_json(fields_of(found))
        return
    from tsguard.render.terminal import show_comparison

    show_comparison(found, _console())


@app.command()
def audit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a folder of Parquet, or a catalogued set.")],
    suite: Annotated[
        str | None, typer.Option("--suite", help="A suite: a JSON file, or a name in suites/data/.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="arrow (one streaming pass) or pandas (stock).")] = "arrow",
    propose: Annotated[Path | None, typer.Option("--propose", help="Write a suite learned from the data here.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the page.")] = Path("reports"),
    json: Json = False,
) -> None:
    """Data expectations alone: judge, write the page, gate."""
    from tsguard import api, commands

    if propose is not None:
        written = commands.propose(data, propose)
        if json:
            _print_json({"suite": str(written)})
        else:
            typer.echo(f"wrote {written}: read it, and edit what you know better")
        return
    _finish(api.audit(data, suite, engine, out), json)


@app.command()
def repro(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    budget_s: Annotated[float, typer.Option("--budget", help="Seconds that the reduction may take.")] = 120.0,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Made values in place of measured ones.")] = False,
    json: Json = False,
) -> None:
    """The minimal reproduction of a failed run: repro.py, test_repro.py and README.md in the run's folder."""
    from tsguard import commands

    made = commands.repro(run, budget_s=budget_s, synthetic=synthetic, progress=_progress(json))
    if json:
        _print_json(made)
    else:
        typer.echo(
            f"{made['script']}: {made['fingerprint']}, {made['size']:,} of {made['original_size']:,} scalars left"
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the two runs.")] = Path("reports"), json: Json = False
) -> None:
    """The embedded example: a sick run stopped at the gate, then the mended run trained; both pages written."""
    from tsguard.demo import play

    played = play(out, _console(quiet=json), progress=_progress(json))
    if json:
        _print_json(played.told())
    raise typer.Exit(played.exit_code)


sets = typer.Typer(help="The catalogue of real data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sets, name="data")
runs = typer.Typer(help="The folder of runs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(runs, name="runs")


@sets.command("list")
def list_sets(json: Json = False) -> None:
    """Every catalogued set: what it is, its licence, and whether it was found."""
    from tsguard.data.sets import listing

    rows = listing()
    if json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo("  ".join(str(value) for value in row.values()))


@sets.command("where")
def where_is(name: Annotated[str, typer.Argument(help="Name of a catalogued set.")], json: Json = False) -> None:
    """How to get a set and where to put it; verified when it is found."""
    from tsguard.data.sets import row, where

    if json:
        _print_json({**row(name), "where": where(name)})
    else:
        typer.echo(where(name))


@runs.command("list")
def list_runs(
    out: Annotated[Path, typer.Argument(help="The folder of runs.")] = Path("reports"), json: Json = False
) -> None:
    """Every run with its verdict and first reason, the newest last."""
    from tsguard import commands

    rows = commands.listed(out)
    if json:
        _print_json(rows)
        return
    if not rows:
        typer.echo(f"no runs in {out}")
        return
    from tsguard.render.terminal import show_runs

    show_runs(rows, _console())


@runs.command("clean")
def clean_runs(
    out: Annotated[Path, typer.Argument(help="The folder of runs.")] = Path("reports"),
    keep: Annotated[int, typer.Option("--keep", min=0, help="Runs of each name that stay, the newest first.")] = 5,
    json: Json = False,
) -> None:
    """Remove old runs. What holds a file called `pinned` stays."""
    from tsguard import commands

    removed = commands.clean(out, keep=keep)
    if json:
        _print_json({"removed": [str(folder) for folder in removed], "kept": len(commands.listed(out))})
        return
    for folder in removed:
        typer.echo(f"removed {folder}")
    typer.echo(f"{len(removed)} removed, {len(commands.listed(out))} kept")


def _changes(given: list[str] | None, deterministic: bool) -> list[str]:
    return [*(given or ()), *(["deterministic=true"] if deterministic else [])]


def _finish(report: Report, json: bool, *, gate: bool = True) -> None:
    if json:
        typer.echo(report.to_json())
    else:
        from tsguard.render.terminal import show

        show(report, _console())
    _tell_ci(report, annotate=not json)
    raise typer.Exit(report.verdict.exit_code if gate else 0)


def _tell_ci(report: Report, *, annotate: bool) -> None:
    """Under GitHub Actions a step summary, and annotations where stdout is free."""
    import os

    from tsguard.render import markdown
    from tsguard.store import append_text

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    append_text(summary, markdown.summary(report))
    for line in markdown.workflow_commands(report) if annotate else ():
        typer.echo(line)


def _console(*, quiet: bool = False) -> Console:
    from rich.console import Console

    return Console(highlight=False, quiet=quiet)


def _progress(quiet: bool) -> Any:
    """Tells a person what runs now, on stderr, one line that is overwritten on a terminal and a line each elsewhere."""
    if quiet:
        return lambda name: None

    last = ""

    def tell(name: str) -> None:
        nonlocal last
        if sys.stderr.isatty():
            typer.echo(f"\r\033[K… {name}", err=True, nl=False)
        elif name != last:
            typer.echo(f"… {name}", err=True)
        last = name

    return tell


def _print_json(value: Any) -> None:
    from tsguard.report import dumps

    typer.echo(dumps(value))
