"""Laws: what must hold of every padded batch and every causal model, searched for counterexamples on the user's own
model.

`run(model, data, padding)` reads the model, asks each law that applies, and leaves the model, its optimizer and every
random generator as it found them. Each law is a pure function from a ground and an example to a counterexample or None.
"""

from __future__ import annotations

from tsguard.laws.law import Law
from tsguard.laws.reading import Reading
from tsguard.laws.results import Counterexample, LawResult
from tsguard.laws.run import LAWS, Examination, examine, read_model, run

__all__ = ["LAWS", "Counterexample", "Examination", "Law", "LawResult", "Reading", "examine", "read_model", "run"]
