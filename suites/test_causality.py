"""Laws of time, batch and mode, on your model (`--run RUN.yaml`) or, without one, on healthy twins of the zoo."""

import pytest

from tsguard import laws

OURS = ("pad-leak", "pad-length", "pad-nan", "pad-all", "mask-")
OTHERS = [law.name for law in laws.LAWS if not law.code.startswith(OURS)]


@pytest.fixture(scope="module")
def answers(laws_of):
    """Every other law, asked once."""
    return {row.law: row for row in laws_of(OTHERS)}


@pytest.mark.parametrize("law", OTHERS)
def test_causality(answers, law, must_hold):
    must_hold(answers, law)
