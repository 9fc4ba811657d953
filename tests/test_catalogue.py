"""Every code has an entry, and every entry is whole."""

import pytest

from tsguard import catalogue
from tsguard.errors import ConfigError


def test_every_entry_is_whole_and_in_a_known_group():
    for entry in catalogue.entries().values():
        assert entry.group in catalogue.GROUPS
        assert all(len(text) > 20 for text in (entry.means, entry.why, entry.mend)), entry.code
        assert entry.severity in ("WARN", "FAIL")


def test_an_unknown_code_names_the_nearest():
    with pytest.raises(ConfigError, match="lr-too-high"):
        catalogue.entry("lr-to-high")


def test_a_finding_takes_the_words_of_its_code():
    finding = catalogue.finding("data-leak", "message")
    assert finding.remedy == catalogue.entry("data-leak").mend
    assert (finding.status, finding.role) == ("FAIL", "cause")
    assert catalogue.finding("data-leak", "message", status="WARN", remedy="x").remedy == "x"
