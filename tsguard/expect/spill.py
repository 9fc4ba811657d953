"""Exact order statistics and exact duplicates of columns that may not fit in memory.

Both stores keep what they are given while a shared budget lasts and move to an anonymous temporary file after that (the
operating system removes it with the process). Order statistics are found by counting leading bits and reading again
only the few buckets that hold the wanted ranks; duplicates by splitting the keys into parts by hash, so that equal keys
meet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsguard.expect.columns import Array, Kind, kind_of, plain_type

BUDGET_BYTES = 192 << 20
"""All stores of one pass together. With GX's imports, Arrow's buffers and the sorting of one part this stays far below
one gigabyte, while everything up to some ten million values never touches the disk."""
PART_BITS = 6
PARTS = 1 << PART_BITS
"""Parts of a spilled key store: 64 parts of 50 million rows are below 20 MB each."""
FLUSH_ROWS = 1 << 20
"""Rows gathered before they are split and written, so that segments on the disk stay long."""
DENSE = 8
"""Integers that lie within this many times their number are told apart by marking them, which needs no sorting: one
byte for each possible value is then still less than the sorting copy."""
SELECT_VALUES = 4 << 20
"""Values that order statistics may hold at once; buckets are refined until the wanted ones are fewer."""
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing spreads consecutive integers


class Budget:
    """Bytes that the stores of one pass share, and the temporary files beyond them (closed on leaving)."""

    def __init__(self, limit: int | None = None) -> None:
        self.left = BUDGET_BYTES if limit is None else limit
        self._files = ExitStack()

    def __enter__(self) -> Budget:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def file(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile())

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        self.left += size


def ordered_bits(values: Array) -> Array:
    """Numbers as uint64 in the same order (the sign bit flipped; of negative floats all bits)."""
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    if values.dtype.kind == "i":
        return values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)  # adding zero makes −0.0 the same key as 0.0
    negative = (bits >> np.uint64(63)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))


def from_bits(bits: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "u":
        return bits.astype(dtype)
    if dtype.kind == "i":
        return (bits ^ np.uint64(1 << 63)).view(np.int64).astype(dtype)
    positive = (bits >> np.uint64(63)).astype(bool)
    return np.where(positive, bits & np.uint64((1 << 63) - 1), ~bits).view(np.float64).astype(dtype)


class OrderStore:
    """Numbers, of which single ranks are asked at the end."""

    def __init__(self, budget: Budget, *, resident: bool) -> None:
        self.count = 0
        self._budget, self._resident = budget, resident
        self._chunks: list[Array] = []
        self._held = 0
        self._file: IO[bytes] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float64)

    def add(self, values: Array) -> None:
        self.count += len(values)
        self._dtype = values.dtype
        if self._file is None and (self._resident or self._budget.take(values.nbytes)):
            self._held += 0 if self._resident else values.nbytes
            self._chunks.append(values)
            return
        if self._file is None:
            self._file = self._budget.file()
            for chunk in self._chunks:
                self._file.write(ordered_bits(chunk).data)
            self._chunks.clear()
            self._budget.give(self._held)
        self._file.write(ordered_bits(values).data)

    def at(self, ranks: Sequence[int]) -> Array:
        """The values at 0-based ranks of the sorted whole."""
        wanted = sorted(set(ranks))
        if self._file is None:
            everything = np.concatenate(self._chunks) if self._chunks else np.empty(0, self._dtype)
            everything.partition(wanted)
            return everything[list(ranks)]
        found = self._search(wanted, prefix=0, bits=0, base=0)
        return from_bits(np.array([found[rank] for rank in ranks], dtype=np.uint64), self._dtype)

    def _search(self, ranks: list[int], *, prefix: int, bits: int, base: int) -> dict[int, int]:
        """Ranks among the values whose leading `bits` are `prefix`, of which `base` smaller ones precede."""
        if bits == 64:
            return dict.fromkeys(ranks, prefix)
        shift = np.uint64(48 - bits)
        counts = np.zeros(1 << 16, dtype=np.int64)
        for block in self._scan():
            inside = block if not bits else block[(block >> np.uint64(64 - bits)) == np.uint64(prefix)]
            counts += np.bincount(((inside >> shift) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        ends = base + np.cumsum(counts)
        buckets = np.searchsorted(ends, ranks, side="right")
        needed = np.unique(buckets)
        found: dict[int, int] = {}
        small = [
            int(bucket)
            for bucket in needed
            if counts[needed].sum() <= SELECT_VALUES or counts[bucket] <= SELECT_VALUES // len(needed)
        ]
        if small:
            keys = np.array([(prefix << 16) | bucket for bucket in small], dtype=np.uint64)
            kept = np.sort(np.concatenate([block[np.isin(block >> shift, keys)] for block in self._scan()]))
            begin = 0
            for bucket in small:
                for rank, place in zip(ranks, buckets, strict=True):
                    if place == bucket:
                        found[rank] = int(kept[begin + rank - int(ends[bucket] - counts[bucket])])
                begin += int(counts[bucket])
        for bucket in set(needed.tolist()) - set(small):
            inner = [rank for rank, place in zip(ranks, buckets, strict=True) if place == bucket]
            found |= self._search(
                inner, prefix=(prefix << 16) | bucket, bits=bits + 16, base=int(ends[bucket] - counts[bucket])
            )
        return found

    def _scan(self) -> Iterator[Array]:
        assert self._file is not None
        self._file.seek(0)
        while block := self._file.read(FLUSH_ROWS * 8):
            yield np.frombuffer(block, dtype=np.uint64)


@dataclass(frozen=True)
class Duplicates:
    """Rows whose key occurs more than once: how many, which (the first ones, or all), and their keys."""

    count: int
    rows: Array
    keys: list[pa.Array]


@dataclass
class _Part:
    keys: list[pa.Array]
    rows: Array | None  # None: row i is i

    def __len__(self) -> int:
        return len(self.keys[0])

    @cached_property
    def ids(self) -> Array:
        return np.arange(len(self), dtype=np.int64) if self.rows is None else self.rows


class KeyStore:
    """Keys of one or more columns with the rows that they came from."""

    def __init__(self, types: Sequence[pa.DataType], budget: Budget, *, resident: bool) -> None:
        self.types = [plain_type(datatype) for datatype in types]
        self.count = 0
        self._budget, self._resident = budget, resident
        self._chunks: list[tuple[list[pa.Array], int, Array | None]] = []
        self._held = 0
        self._waiting = 0
        self._file: IO[bytes] | None = None
        self._segments: list[list[tuple[int, int]]] = [[] for _ in range(PARTS)]

    def add(self, keys: Sequence[pa.Array], start: int, positions: Array | None) -> None:
        keys = [_normalised(key) for key in keys]
        rows = len(keys[0])
        self.count += rows
        self._chunks.append((keys, start, positions))
        if self._file is None and self._resident:
            return
        size = sum(key.nbytes for key in keys) + (0 if positions is None else positions.nbytes)
        if self._file is None and self._budget.take(size):
            self._held += size
            return
        self._waiting += rows
        if self._file is None:
            self._file = self._budget.file()
            self._flush()
            self._budget.give(self._held)
        elif self._waiting >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        assert self._file is not None
        for group in _groups(self._chunks, FLUSH_ROWS):
            part = self._gather(group)
            home = (_hashes(part.keys) >> np.uint64(64 - PART_BITS)).astype(np.int64)
            order = np.argsort(home, kind="stable")
            bounds = np.searchsorted(home[order], np.arange(PARTS + 1))
            batch = pa.RecordBatch.from_arrays(
                [*part.keys, pa.array(part.ids)], names=[str(number) for number in range(len(part.keys) + 1)]
            ).take(pa.array(order))
            for number in range(PARTS):
                piece = batch.slice(bounds[number], bounds[number + 1] - bounds[number])
                if piece.num_rows:
                    payload = piece.serialize()
                    self._segments[number].append((self._file.tell(), payload.size))
                    self._file.write(payload)
        self._chunks, self._waiting = [], 0

    def _gather(self, chunks: list[tuple[list[pa.Array], int, Array | None]]) -> _Part:
        if not chunks:
            return _Part([pa.array([], datatype) for datatype in self.types], None)
        keys = [pa.concat_arrays([chunk[0][number] for chunk in chunks]) for number in range(len(self.types))]
        if chunks[0][1] == 0 and all(positions is None for _, _, positions in chunks):
            return _Part(keys, None)
        rows = [
            np.arange(start, start + len(key[0]), dtype=np.int64) if positions is None else start + positions
            for key, start, positions in chunks
        ]
        return _Part(keys, np.concatenate(rows))

    def _parts(self) -> Iterator[_Part]:
        if self._file is None:
            yield self._gather(self._chunks)
            return
        self._flush()
        names = [str(number) for number in range(len(self.types) + 1)]
        schema = pa.schema(list(zip(names, [*self.types, pa.int64()], strict=True)))
        for segments in self._segments:
            batches = []
            for offset, size in segments:
                self._file.seek(offset)
                batches.append(pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), schema))
            if batches:
                *keys, rows = pa.Table.from_batches(batches).combine_chunks().columns
                yield _Part([_one(key) for key in keys], _one(rows).to_numpy(zero_copy_only=False))

    @cached_property
    def distinct_count(self) -> int:
        return sum(_distinct_count(part.keys) for part in self._parts())

    def distinct(self) -> tuple[pa.Array, Array]:
        """Distinct values of a single key and how often each occurs."""
        values, counts = [], []
        for part in self._parts():
            counted = part.keys[0].value_counts()
            values.append(counted.field("values"))
            counts.append(counted.field("counts").to_numpy(zero_copy_only=False))
        if not values:
            return pa.array([], self.types[0]), np.empty(0, np.int64)
        return pa.concat_arrays(values), np.concatenate(counts)

    def duplicates(self, limit: int | None) -> Duplicates:
        """Every row of a key that occurs twice or more; rows and keys of the first `limit` of them (None: all)."""
        count, rows, keys = 0, [], []
        for part in () if self.distinct_count == self.count else self._parts():
            twice = _twice(part.keys)
            if twice is None:
                continue
            found = np.flatnonzero(twice)
            count += len(found)
            if limit is not None and len(found) > limit:
                ids = part.ids[found]
                found = found[np.argpartition(ids, limit)[:limit]] if part.rows is not None else found[:limit]
            rows.append(part.ids[found])
            keys.append([key.take(pa.array(found)) for key in part.keys])
        if not rows:
            return Duplicates(0, np.empty(0, np.int64), [pa.array([], datatype) for datatype in self.types])
        every = np.concatenate(rows)
        order = np.argsort(every)[:limit]
        joined = [
            pa.concat_arrays([piece[number] for piece in keys]).take(pa.array(order))
            for number in range(len(self.types))
        ]
        return Duplicates(count, every[order], joined)


def _groups(chunks: list[tuple[list[pa.Array], int, Array | None]], rows: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    held = 0
    for chunk in chunks:
        group.append(chunk)
        held += len(chunk[0][0])
        if held >= rows:
            yield group
            group, held = [], 0
    if group:
        yield group


def _normalised(key: pa.Array) -> pa.Array:
    """A key in which equal means identical: no dictionary, NaN as null, −0.0 as 0.0."""
    if pa.types.is_dictionary(key.type):
        key = key.dictionary_decode()
    if pa.types.is_floating(key.type):
        values = key.to_numpy(zero_copy_only=False)
        if np.isnan(values).any() or np.any((values == 0) & np.signbit(values)):
            key = pa.array(values + values.dtype.type(0), key.type, from_pandas=True)
    return key


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _numbers(keys: Sequence[pa.Array]) -> Array | None:
    """A single key without nulls as numpy numbers, or None: those can be sorted, the rest must be encoded."""
    if len(keys) != 1 or keys[0].null_count:
        return None
    kind = kind_of(keys[0].type)
    if kind is Kind.TIMESTAMP:
        stamps: Array = keys[0].view(pa.int64()).to_numpy()
        return stamps
    if kind in (Kind.INTEGER, Kind.FLOAT):
        numbers: Array = keys[0].to_numpy()
        return numbers
    return None


def _codes(keys: Sequence[pa.Array]) -> Array:
    """One integer per row, equal exactly where all keys are equal (null equals null)."""
    codes = np.zeros(len(keys[0]), dtype=np.int64)
    for number, key in enumerate(keys):
        encoded = key.dictionary_encode(null_encoding="encode")
        codes = codes * (len(encoded.dictionary) + 1) + encoded.indices.to_numpy(zero_copy_only=False)
        if number:  # made dense again, so that the next product cannot overflow
            codes = np.unique(codes, return_inverse=True)[1]
    return codes


def _distinct_count(keys: Sequence[pa.Array]) -> int:
    numbers = _numbers(keys)
    if numbers is None:
        return int(pc.count_distinct(keys[0], mode="all").as_py()) if len(keys) == 1 else len(np.unique(_codes(keys)))
    if len(numbers) < 2 or _rises(numbers):
        return len(numbers)
    seen = _marks(numbers)
    if seen is not None:
        return int(np.count_nonzero(seen))
    ordered = np.sort(numbers)
    return len(ordered) - int(np.count_nonzero(ordered[1:] == ordered[:-1]))


def _twice(keys: Sequence[pa.Array]) -> Array | None:
    """Which rows have a key that occurs more than once; None if none has."""
    numbers = _numbers(keys)
    if numbers is not None:
        if len(numbers) < 2 or _rises(numbers):
            return None
        ordered = np.sort(numbers)
        again = ordered[1:] == ordered[:-1]
        if not again.any():
            return None
        repeated = np.unique(ordered[1:][again])
        return np.isin(numbers, repeated)
    codes = _codes(keys)
    counts = np.bincount(codes)
    result: Array = counts[codes] > 1
    return result if result.any() else None


def _marks(numbers: Array) -> Array | None:
    """Which integers from the least one on occur; None where they lie too far apart to be marked."""
    if numbers.dtype.kind == "f":
        return None
    low, high = int(numbers.min()), int(numbers.max())
    if high - low >= DENSE * len(numbers):
        return None
    seen = np.zeros(high - low + 1, dtype=bool)
    for start in range(0, len(numbers), FLUSH_ROWS):
        seen[numbers[start : start + FLUSH_ROWS].astype(np.int64, copy=False) - low] = True
    return seen


def _rises(numbers: Array) -> bool:
    """Strictly increasing, as row numbers and times often are: then nothing repeats and nothing need be sorted."""
    return bool(np.all(numbers[1:] > numbers[:-1]))


def _hashes(keys: Sequence[pa.Array]) -> Array:
    """A hash per row; equal keys have equal hashes, which is all that is asked of it."""
    from pandas.util import hash_array

    mixed = np.zeros(len(keys[0]), dtype=np.uint64)
    for key in keys:
        if kind_of(key.type) in (Kind.INTEGER, Kind.FLOAT, Kind.TIMESTAMP):
            filled = pc.fill_null(key, pa.scalar(0, pa.int64()).cast(key.type)) if key.null_count else key
            numbers = _numbers([filled])
            assert numbers is not None
            part = ordered_bits(numbers)
        else:
            encoded = key.dictionary_encode(null_encoding="encode")
            distinct = np.array([repr(value) for value in encoded.dictionary.to_pylist()], dtype=object)
            part = hash_array(distinct, categorize=False)[encoded.indices.to_numpy(zero_copy_only=False)]
        mixed = (mixed ^ part) * _MIX
    return mixed ^ (mixed >> np.uint64(29))
