"""The embedded example: a sick run that the gate stops, then the mended run, trained; both pages written.

It runs the same code as `tsguard check` and `tsguard train` on two configurations that ship with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tsguard.report import Report

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Played:
    """What became of both runs."""

    sick: Report
    mended: Report

    @property
    def exit_code(self) -> int:
        """0 where the gate stopped the one and passed the other, else 3."""
        return 0 if (self.sick.verdict.exit_code, self.mended.verdict.exit_code) == (1, 0) else 3

    def told(self) -> dict[str, Any]:
        """The same for machines."""
        both = {"sick": self.sick, "mended": self.mended}
        return {
            name: {"verdict": str(one.verdict.status), "reasons": list(one.verdict.reasons), "page": str(one.path)}
            for name, one in both.items()
        }


def play(out: Path, console: Console, *, progress: Callable[[str], None]) -> Played:
    """Both runs, told as a story."""
    from tsguard import commands
    from tsguard.render.terminal import show

    console.print("[bold]1. A run that cannot survive[/]: masked-patch pre-training on series of six patches.")
    sick = commands.train(HERE / "sick.yaml", out=out, progress=progress)
    show(sick, console, shown=2)
    console.print("\n[bold]2. The same run, mended[/]: at least one patch is always hidden.")
    mended = commands.train(HERE / "mended.yaml", out=out, progress=progress)
    show(mended, console, shown=2)
    console.print("\nOpen these two pages:")
    for report in (sick, mended):
        console.print(f"  {report.path}", soft_wrap=True, highlight=False)
    console.print("\nNext: `tsguard init` writes a run.yaml for a model of your own, or put one line into a script:")
    console.print("  model.fit(x, y, callbacks=[tsguard.Guard()])", highlight=False, markup=False)
    return Played(sick, mended)
