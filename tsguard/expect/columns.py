"""One column of one batch, looked at once and shared by every expectation that asks about it.

"Missing" is what pandas calls missing: null, and NaN in a float column. `values` holds the rest as numpy (timestamps as
their integers), `positions` says in which rows they lie; both are views of the Arrow memory wherever nothing is
missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]

EXACT_IN_FLOAT = 1 << 53
"""Integers beyond this are rounded by float64, which is how pandas holds integers beside nulls."""
NOT_A_TIME = np.iinfo(np.int64).min
"""The timestamp that pandas reads as missing though Arrow does not."""


class Kind(Enum):
    """What a column is to the metrics; `OTHER` goes to pandas, whose object columns have rules of their own."""

    INTEGER = "integer"
    FLOAT = "float"
    STRING = "string"
    TIMESTAMP = "timestamp"
    CATEGORY = "category"
    OTHER = "other"


def kind_of(datatype: pa.DataType) -> Kind:
    if pa.types.is_integer(datatype) and not pa.types.is_uint64(datatype):  # uint64 has no common type with int64
        return Kind.INTEGER
    if pa.types.is_float32(datatype) or pa.types.is_float64(datatype):
        return Kind.FLOAT
    if pa.types.is_string(datatype) or pa.types.is_large_string(datatype):
        return Kind.STRING
    if pa.types.is_timestamp(datatype):
        return Kind.TIMESTAMP
    if pa.types.is_dictionary(datatype) and kind_of(datatype.value_type) is Kind.STRING:
        return Kind.CATEGORY
    return Kind.OTHER


def plain_type(datatype: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without a dictionary around them."""
    return datatype.value_type if pa.types.is_dictionary(datatype) else datatype


class ColumnSlice:
    """One column of one batch, with what several metrics want of it computed at most once."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array
        self.kind = kind_of(array.type)

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def _known(self) -> pa.Array:
        return self.array.drop_null() if self.array.null_count else self.array

    @cached_property
    def _raw(self) -> Array:
        """The values that are not null; NaN still among them."""
        known = self._known
        if self.kind is Kind.TIMESTAMP:
            known = known.view(pa.int64())
        result: Array = known.to_numpy(zero_copy_only=False)
        return result

    @cached_property
    def _nan(self) -> Array | None:
        """Where `_raw` is NaN, or None: a finite sum proves, at the price of one read, that nothing is."""
        if self.kind is Kind.TIMESTAMP:
            untimed: Array = self._raw == NOT_A_TIME
            return untimed if untimed.any() else None
        if self.kind is not Kind.FLOAT or np.isfinite(self._raw_total):
            return None
        nan = np.isnan(self._raw)
        return nan if nan.any() else None

    @cached_property
    def _raw_total(self) -> np.floating[Any]:
        with np.errstate(all="ignore"):
            total: np.floating[Any] = self._raw.sum(dtype=np.float64)
        return total

    @cached_property
    def values(self) -> Array:
        return self._raw if self._nan is None else self._raw[~self._nan]

    @cached_property
    def missing(self) -> int:
        nan = 0 if self._nan is None else int(np.count_nonzero(self._nan))
        return int(self.array.null_count) + nan

    @cached_property
    def present_mask(self) -> Array | None:
        """True where there is a value; None when that is everywhere."""
        if not self.missing:
            return None
        mask: Array = self.array.is_valid().to_numpy(zero_copy_only=False)
        if self._nan is not None:
            mask = mask.copy()
            mask[np.flatnonzero(mask)[self._nan]] = False
        return mask

    @cached_property
    def positions(self) -> Array | None:
        """Row in the batch of each of `values`; None when that is simply its index."""
        mask = self.present_mask
        return None if mask is None else np.flatnonzero(mask)

    @cached_property
    def known(self) -> pa.Array:
        """The values that are present, as Arrow."""
        if self._nan is None:
            return self._known
        return self._known.filter(pa.array(~self._nan))

    @cached_property
    def total(self) -> np.floating[Any]:
        if self._nan is None and self.kind is Kind.FLOAT:
            return self._raw_total
        with np.errstate(all="ignore"):
            total: np.floating[Any] = self.values.sum(dtype=np.float64)
        return total

    @cached_property
    def low(self) -> Any:
        return self._extremes[0]

    @cached_property
    def high(self) -> Any:
        return self._extremes[1]

    @cached_property
    def _extremes(self) -> tuple[Any, Any]:
        """Least and greatest value, None of nothing: numpy scalars of numbers, Arrow scalars of the rest."""
        if self.kind in (Kind.INTEGER, Kind.FLOAT, Kind.TIMESTAMP):
            return (self.values.min(), self.values.max()) if len(self.values) else (None, None)
        both = pc.min_max(self._known)
        return (both["min"], both["max"]) if both["min"].is_valid else (None, None)

    @property
    def is_encoded(self) -> bool:
        return "encoded" in self.__dict__

    @cached_property
    def encoded(self) -> tuple[pa.Array, Array]:
        """Distinct values and, for each value that is present, which of them it is."""
        known = self.known
        if not pa.types.is_dictionary(known.type):
            known = known.dictionary_encode()
        return known.dictionary, known.indices.to_numpy(zero_copy_only=False)

    def rows(self, found: Array) -> Array:
        """Indices into `values` as rows of the batch."""
        return found if self.positions is None else self.positions[found]


class Batch:
    """A record batch, the row at which it starts, and its columns looked at lazily."""

    def __init__(self, records: pa.RecordBatch, start: int) -> None:
        self.records = records
        self.start = start
        self._columns: dict[str, ColumnSlice] = {}

    def __len__(self) -> int:
        return int(self.records.num_rows)

    def column(self, name: str) -> ColumnSlice:
        if name not in self._columns:
            self._columns[name] = ColumnSlice(self.records.column(name))
        return self._columns[name]


def as_series(array: pa.Array | pa.ChunkedArray, *, had_nulls: bool) -> pd.Series[Any]:
    """The values as pandas would hold them in a column that has (or has not) nulls elsewhere.

    Integers beside nulls become floats, as in `Table.to_pandas()`, but stay exact integers where a float would round.
    """
    import pandas as pd

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # a dictionary may still come in chunks
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    had_nulls = had_nulls or bool(array.null_count)
    if had_nulls and pa.types.is_integer(array.type) and not survives_float(array):
        return pd.Series([np.nan if value is None else value for value in array.to_pylist()], dtype=object)
    if not had_nulls or array.null_count:
        return array.to_pandas()
    return pa.concat_arrays([array, pa.nulls(1, array.type)]).to_pandas().iloc[:-1]


def array_of(values: Sequence[Any], datatype: pa.DataType) -> pa.Array:
    """Extremes or ranks (numpy or Arrow scalars; timestamps as integers) as an array of the column's own type."""
    plain = [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]
    if pa.types.is_timestamp(datatype):
        return pa.array(plain, pa.int64()).view(datatype)
    return pa.array(plain, plain_type(datatype))


def survives_float(array: pa.Array) -> bool:
    """Whether float64 holds every one of the integers as it is."""
    both = pc.min_max(array)
    low, high = both["min"].as_py(), both["max"].as_py()
    if low is None or (low >= -EXACT_IN_FLOAT and high <= EXACT_IN_FLOAT):
        return True
    return all(value is None or int(float(value)) == value for value in array.to_pylist())


def as_frame(records: pa.RecordBatch | pa.Table, columns: Sequence[str], *, start: int = 0) -> pd.DataFrame:
    """Chosen columns as a pandas frame whose index counts the rows of the whole data."""
    import pandas as pd

    frame = (
        (records if isinstance(records, pa.Table) else pa.Table.from_batches([records]))
        .select(list(columns))
        .to_pandas()
    )
    frame.index = pd.RangeIndex(start, start + len(frame))
    return frame
