"""Laws of padding and masks: on your model with `--run RUN.yaml`, otherwise on healthy twins of the zoo."""

import pytest

from tsguard import laws

PADDING = [
    law.name for law in laws.LAWS if law.code.startswith(("pad-leak", "pad-length", "pad-nan", "pad-all", "mask-"))
]


@pytest.fixture(scope="module")
def answers(laws_of):
    """Every law of padding, asked once."""
    return {row.law: row for row in laws_of(PADDING)}


@pytest.mark.parametrize("law", PADDING)
def test_padding(answers, law, must_hold):
    must_hold(answers, law)
