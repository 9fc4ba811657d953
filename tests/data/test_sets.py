"""The catalogue of real sets: what is absent says how to get it; what is there is verified and keeps its shape."""

from __future__ import annotations

import numpy as np
import pytest

from tsguard.data import sets
from tsguard.errors import DataError


def real(name):
    marks = [pytest.mark.realdata]
    absent = sets.locate(name) is None
    marks.append(pytest.mark.skipif(absent, reason=f"{name} is not here: see `tsguard data where {name}`"))
    return pytest.param(name, marks=marks)


SHAPES = {
    "etth1": (17_420, 7),
    "arem": (42_237, 6),
    "air_quality": (9_357, 10),
    "vix": (9_235, 12),
    "nab": (67_740, 1),
    "movielens": (100_836, 1),
    "japanese_vowels": (640, 12),
    "era5_uk": (744, 1),
}


def test_every_set_has_address_licence_and_digest():
    assert set(SHAPES) == set(sets.SETS)
    for one in sets.SETS.values():
        assert one.address.startswith("https://")
        assert one.licence
        assert len(one.sha256) == 64
        int(one.sha256, 16)


def test_duets_four_sets_have_seven_six_ten_and_twelve_features():
    assert [len(sets.entry(name).features) for name in ("etth1", "arem", "air_quality", "vix")] == [7, 6, 10, 12]


def test_an_absent_set_says_how_to_get_it_and_where_to_put_it(tmp_path):
    text = sets.where("etth1", tmp_path)
    assert "https://github.com/zhouhaoyi/ETDataset" in text
    assert str(tmp_path / "ett") in text
    assert sets.entry("etth1").sha256 in text
    with pytest.raises(DataError, match="Fetch it from the source"):
        sets.entry("etth1").load(tmp_path)
    assert {row["here"] for row in sets.listing(tmp_path)} == {"absent"}


def test_a_copy_that_differs_is_not_called_verified(tmp_path):
    (tmp_path / "vix").mkdir()
    (tmp_path / "vix" / "vix-daily.csv").write_text("DATE,OPEN,HIGH,LOW,CLOSE\n1990-01-02,1,1,1,1\n")
    assert sets.verified("vix", tmp_path) is False
    assert "the catalogue knows" in sets.where("vix", tmp_path)


def test_the_variable_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.VARIABLE, str(tmp_path))
    assert sets.data_root() == tmp_path
    monkeypatch.setenv(sets.VARIABLE, str(tmp_path / "nothing"))
    assert sets.data_root() is None


def test_an_unknown_set_lists_the_known_ones():
    with pytest.raises(DataError, match="japanese_vowels"):
        sets.entry("titanic")


@pytest.mark.parametrize("name", [real(name) for name in SHAPES])
def test_a_real_set_is_verified_and_has_its_promised_shape(name):
    assert sets.verified(name)
    reading = sets.entry(name).load()
    rows, features = SHAPES[name]
    assert reading.num_rows == rows
    assert len(sets.entry(name).features) == features
    assert set(sets.entry(name).features) <= set(reading.table.column_names)


@pytest.mark.parametrize("name", [real("arem")])
def test_what_arem_needs_mended_is_listed(name):
    repairs = sets.entry(name).load().repairs
    kinds = {kind: [r for r in repairs if r.kind == kind] for kind in ("comment-header", "unnamed-column", "delimiter")}
    assert len(kinds["comment-header"]) == len(kinds["unnamed-column"]) == 88
    assert [(r.file, r.count) for r in kinds["delimiter"]] == [("bending2/dataset4.csv", 480)]


@pytest.mark.parametrize("name", [real("vix")])
def test_derived_prices_are_causal(name):
    reading = sets.entry(name).load()
    prices = [reading.column(column) for column in ("OPEN", "HIGH", "LOW", "CLOSE")]
    cut = sets.derived_prices(*(price[:500] for price in prices))
    for column, values in cut.items():
        assert np.array_equal(values, reading.column(column)[:500])
