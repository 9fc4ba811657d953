"""A finding that is no single failing step, as a case that can be saved: a broken law, a sick training, faulty data.

What differs is the script; that it is confirmed in a fresh process before it is called a reproduction does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tsguard.evidence import Evidence
from tsguard.findings import Finding
from tsguard.repro import script as scripts
from tsguard.repro.case import Fingerprint


@dataclass(frozen=True)
class FoundCase:
    """A finding with the scripts that could show it, the plainest first."""

    finding: Finding
    name: str
    makers: tuple[Callable[[], scripts.Script], ...]
    """Tried in turn until one fails in a fresh process: seeded weights, then recorded ones."""
    size: int
    original_size: int
    prints: str
    nearest_healthy: str = ""
    exhausted: bool = False
    plain: bool = False
    """Whether the first script needs nothing of tsguard."""
    synthetic: str = ""
    """Said of values that were made and not measured."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What must come back."""
        where = self.finding.where
        return Fingerprint(self.finding.code, self._phase, None, str(where["layer"]) if "layer" in where else None)

    @property
    def _phase(self) -> str:
        return str(self.finding.where.get("phase", "law" if "law" in self.finding.where else "training"))

    def __repr__(self) -> str:
        return f"<FoundCase {self.name}: {self.finding.code}; {self.size:,} of {self.original_size:,} scalars>"

    @property
    def words(self) -> str:
        """The failure in one line."""
        return scripts.one_line(f"{self.finding.code}: {self.finding.message}")

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What stands beside the failing case, for the finding that it reproduces."""
        words = self.nearest_healthy
        return (Evidence("value", words, name="nearest healthy case"),) if words else ()

    def save(self, folder: str | Path, *, confirm: bool = True) -> Path:
        """Write repro.py, test_repro.py and README.md; the path of the script."""
        folder = Path(folder)
        script = self.makers[0]()
        for candidate in itertools.chain([script], (make() for make in self.makers[1:])):
            if candidate.refused:
                continue
            script = candidate
            if not confirm or scripts.confirm(script, folder):
                break
        script.files["README.md"] = scripts.page(
            script,
            title=self.words,
            fingerprint=scripts.one_line(f"{self.finding.code}: {self.finding.message}", scripts.SAID),
            prints=self.prints,
            remedy=self.finding.remedy,
            size=self.size,
            original_size=self.original_size,
            nearest=self.nearest_healthy,
            exhausted=self.exhausted,
            synthetic=self.synthetic,
        )
        return scripts.write(script, folder)
