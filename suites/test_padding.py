"""Laws of padding and masks, on your model (`--run RUN.yaml`) or, without one, on the healthy twins of the zoo of padded models."""

import pytest

from tsguard import laws

PADDING = [law.name for law in laws.LAWS if law.code.startswith(("pad-", "mask-"))]


@pytest.fixture(scope="module")
def answers(laws_of):
    """Every law of padding, asked once."""
    return {row.law: row for row in laws_of(PADDING)}


@pytest.mark.parametrize("law", PADDING)
def test_padding(answers, law):
    row = answers[law]
    if row.outcome == "not-applicable":
        pytest.skip(row.reason)
    assert row.outcome == "holds", row.reason
