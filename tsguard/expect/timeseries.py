"""Expectations for time series that Great Expectations lacks, as GX expectation classes of the ordinary kind.

Each judges metrics that are registered with GX's own pandas engine, so that they work in any GX project that imports
this module; the Arrow pass of `tsguard.expect.validate` supplies the same metrics. What is measured lives in
`tsguard.expect.measures`; here it is only asked of columns and compared with what was expected.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from tsguard.expect import measures
from tsguard.expect.stock import quiet

with quiet():
    from great_expectations.core.metric_domain_types import MetricDomainTypes
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import BatchExpectation, ColumnMapExpectation
    from great_expectations.expectations.metrics.map_metric_provider import (
        ColumnMapMetricProvider,
        column_condition_partial,
    )
    from great_expectations.expectations.metrics.metric_provider import metric_value
    from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

MEASURED = "tsguard.measured"
"""The metric behind the whole-table expectations: the columns that one of them needs, in the order of the rows."""
SAMPLE = 20
"""Rows named in a result; GX shows as many."""
NANOSECONDS = 1e9


# --- single values


class _Finite(ColumnMapMetricProvider):
    condition_metric_name = "column_values.tsguard_finite"
    filter_column_isnull = False

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, **kwargs: Any) -> Any:
        return pd.Series(np.isfinite(column.to_numpy(dtype=np.float64, na_value=np.nan)), index=column.index)


class ExpectColumnValuesToBeFinite(ColumnMapExpectation):
    """Expect every value to be a finite number: NaN and null count as unexpected, which GX's own expectations skip."""

    map_metric: ClassVar[str] = "column_values.tsguard_finite"
    domain_keys: ClassVar[tuple[str, ...]] = ("column", "row_condition", "condition_parser")
    success_keys: ClassVar[tuple[str, ...]] = ("mostly",)
    args_keys: ClassVar[tuple[str, ...]] = ("column",)

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        # GX counts unexpected values among those that are not null; here null is unexpected itself
        missing = "column_values.nonnull.unexpected_count"
        return super()._validate({**metrics, missing: 0}, runtime_configuration, execution_engine)


# --- whole columns


@dataclass(frozen=True)
class Measured:
    """One column as numpy: times in int64 nanoseconds (floats where one is missing), numbers as they are, else
    objects."""

    values: Any
    second: float  # how many of the units of `values` are a second, or one unit of a column of numbers


class _MeasuredColumns(TableMetricProvider):
    metric_name = MEASURED
    value_keys = ("columns",)

    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Any, metric_value_kwargs: Any, **kwargs: Any) -> Any:
        frame, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE)
        columns = list(metric_value_kwargs["columns"])
        absent = [column for column in columns if column not in frame.columns]
        if absent:
            there = ", ".join(map(repr, frame.columns))
            raise ValueError(f"no such columns: {', '.join(map(repr, absent))}; there are {there}")
        return {column: measured(frame[column]) for column in columns}, len(frame)


def measured(column: Any) -> Measured:
    """A pandas column for the measures. Days (Arrow's date32, python's date) are times at midnight."""
    if column.dtype == object and len(held := column.dropna()) and isinstance(held.iloc[0], datetime.date):
        column = pd.to_datetime(column)
    zoned = isinstance(column.dtype, pd.DatetimeTZDtype)
    if zoned or column.dtype.kind == "M":
        stamps = (column.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else column).to_numpy(
            dtype="datetime64[ns]"
        )
        numbers = stamps.astype(np.int64)
        return Measured(np.where(np.isnat(stamps), np.nan, numbers) if np.isnat(stamps).any() else numbers, NANOSECONDS)
    return Measured(column.to_numpy() if column.dtype.kind in "iufb" else column.to_numpy(dtype=object), 1.0)


class _MeasuringExpectation(BatchExpectation):
    """An expectation on whole columns: subclasses name the columns and answer with success, observed value and
    details."""

    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id", "row_condition", "condition_parser")

    @classmethod
    def is_abstract(cls) -> bool:
        return cls.__name__.startswith("_")

    def columns(self) -> list[str | None]:
        """Names of the columns that are measured; None is skipped."""
        return [getattr(self, name, None) for name in ("column", "entity", "split", "set_column")]

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        raise NotImplementedError

    def get_validation_dependencies(self, execution_engine: Any = None, runtime_configuration: Any = None) -> Any:
        from great_expectations.validator.metric_configuration import MetricConfiguration

        dependencies = super().get_validation_dependencies(execution_engine, runtime_configuration)
        given = self.configuration.kwargs
        domain = {key: given.get(key) for key in ("batch_id", "row_condition", "condition_parser")}
        columns = list(dict.fromkeys(column for column in self.columns() if column is not None))
        dependencies.set_metric_configuration(MEASURED, MetricConfiguration(MEASURED, domain, {"columns": columns}))
        return dependencies

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        success, observed, details = self.measure(*metrics[MEASURED])
        return {"success": bool(success), "result": {"observed_value": observed, "details": details}}


def _rows(rows: Any) -> dict[str, Any]:
    """Offending rows as details: how many, and the first of them."""
    return {"unexpected_count": len(rows), "partial_unexpected_index_list": [int(row) for row in rows[:SAMPLE]]}


def _optional(data: dict[str, Measured], name: str | None) -> Any:
    return None if name is None else data[name].values


class _OfOneColumn(_MeasuringExpectation):
    column: str
    entity: str | None = None


class ExpectColumnTimeToIncreasePerEntity(_OfOneColumn):
    """Expect times to increase within each entity (without `entity`: from row to row)."""

    strictly: bool = True
    success_keys: ClassVar[tuple[str, ...]] = ("column", "entity", "strictly")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        found = measures.out_of_order(data[self.column].values, _optional(data, self.entity), strictly=self.strictly)
        return not len(found), len(found), _rows(found)


class ExpectColumnIntervalToBeRegular(_OfOneColumn):
    """Expect each row one interval after the entity's row before, within `tolerance` (a share of the interval).

    `interval` is in seconds for timestamps and in the column's own unit for numbers; without it, the most common step.
    """

    interval: float | None = None
    tolerance: float = 0.0
    mostly: float = 1.0
    success_keys: ClassVar[tuple[str, ...]] = ("column", "entity", "interval", "tolerance", "mostly")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        times, entities = data[self.column], _optional(data, self.entity)
        usual = measures.usual_interval(times.values, entities) / times.second
        interval = usual if self.interval is None else self.interval
        found = measures.irregular(times.values, interval * times.second, entities, tolerance=self.tolerance)
        share = 1.0 - len(found) / max(rows - 1, 1)
        return share >= self.mostly, share, {"interval": interval, "usual_interval": usual, **_rows(found)}


class ExpectColumnGapsToBeShorterThan(_OfOneColumn):
    """Expect no two consecutive rows of an entity to lie more than `longest` apart (seconds, or the column's unit)."""

    longest: float
    success_keys: ClassVar[tuple[str, ...]] = ("column", "entity", "longest")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        times, entities = data[self.column], _optional(data, self.entity)
        found = measures.gaps(times.values, self.longest * times.second, entities)
        ordered = (times.values, None) if entities is None else measures.sorted_by_entity(times.values, entities)[:2]
        known = measures.steps(*ordered)
        widest = float(np.nanmax(known)) / times.second if len(known) and np.isfinite(known).any() else 0.0
        return not len(found), widest, _rows(found)


class ExpectColumnStuckRunsToBeShorterThan(_OfOneColumn):
    """Expect no value to repeat for `longest` consecutive rows or more: a sensor that is stuck, a feed that has
    stopped."""

    longest: int
    success_keys: ClassVar[tuple[str, ...]] = ("column", "entity", "longest")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        entities, values = _optional(data, self.entity), data[self.column].values
        if entities is not None:
            values, entities, order = measures.sorted_by_entity(values, entities)
        runs = measures.stuck_runs(values, at_least=self.longest, entities=entities)
        starts = runs.starts if entities is None else order[runs.starts]
        longest = measures.stuck_runs(values, at_least=1, entities=entities).longest
        worst = np.argsort(-runs.lengths, kind="stable")[:SAMPLE]
        told = [
            {
                "row": int(starts[run]),
                "length": int(runs.lengths[run]),
                "value": _plain(data[self.column].values[starts[run]]),
            }
            for run in worst
        ]
        return not len(starts), longest, {**_rows(starts), "runs": told}


class ExpectColumnSentinelValuesToBeAbsent(_MeasuringExpectation):
    """Expect no number that stands for "missing" (−200, −999 …).

    With `sentinels` these numbers are looked for. Without, any extreme value that recurs and lies far apart from the
    rest.
    """

    column: str
    sentinels: list[float] | None = None
    success_keys: ClassVar[tuple[str, ...]] = ("column", "sentinels")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = np.asarray(data[self.column].values, dtype=np.float64)
        if self.sentinels is None:
            found = {sentinel.value: sentinel.count for sentinel in measures.sentinels(values)}
        else:
            counts = {float(sentinel): int(np.count_nonzero(values == sentinel)) for sentinel in self.sentinels}
            found = {value: count for value, count in counts.items() if count}
        where = np.flatnonzero(np.isin(values, list(found)))
        told = [{"value": value, "count": count} for value, count in found.items()]
        return not found, list(found), {**_rows(where), "sentinels": told}


class ExpectColumnClassSharesToBeBetween(_MeasuringExpectation):
    """Expect every class of a label to have at least `min_share` of the rows, and the largest at most `max_share`.

    The observed value is the majority share: the accuracy of a constant answer, which any classifier must beat.
    """

    column: str
    min_share: float = 0.0
    max_share: float = 1.0
    classes: list[Any] | None = None
    success_keys: ClassVar[tuple[str, ...]] = ("column", "min_share", "max_share", "classes")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = data[self.column].values
        shares = measures.class_shares(values[~pd.isna(values)])
        missing = [label for label in self.classes or [] if label not in shares]
        strange = [label for label in shares if self.classes is not None and label not in self.classes]
        majority = max(shares.values(), default=0.0)
        success = bool(shares) and majority <= self.max_share and min(shares.values(), default=0.0) >= self.min_share
        details = {
            "shares": {str(label): share for label, share in shares.items()},
            "absent": missing,
            "unknown": strange,
        }
        return success and not missing and not strange, majority, details


class ExpectColumnTimestampsToSurviveFloat32(_OfOneColumn):
    """Expect the steps between times to survive a cast to float32 (a 32-bit float of epoch seconds moves by 64 or 128
    s).

    Timestamps are taken as epoch seconds, numbers as they are; the observed value is the share of steps that become
    zero.
    """

    max_loss: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("column", "entity", "max_loss")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        times = data[self.column]
        seconds = times.values / times.second if times.second != 1.0 else times.values
        there = np.isfinite(np.asarray(seconds, dtype=np.float64))
        known, entities = seconds[there], _optional(data, self.entity)
        loss = measures.float32_loss(known, None if entities is None else entities[there])
        grain = float(np.spacing(np.float32(np.max(np.abs(known))))) if len(known) else 0.0
        return loss <= self.max_loss, loss, {"unit_in_last_place": grain}


class ExpectTableVolumeToBeAsDeclared(_MeasuringExpectation):
    """Expect as many rows (samples) as were declared, and as many batches an epoch: the wrong file has neither."""

    samples: int | None = None
    batch_size: int | None = None
    batches: int | None = None
    drop_last: bool = False
    tolerance: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("samples", "batch_size", "batches", "drop_last", "tolerance")

    def columns(self) -> list[str | None]:
        return []

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        wrong = []
        if self.samples is not None and abs(rows - self.samples) > self.tolerance * self.samples:
            wrong.append(f"{rows} samples, declared {self.samples}")
        batches = None
        if self.batch_size:
            batches = measures.batches_per_epoch(rows, self.batch_size, drop_last=self.drop_last)
            if self.batches is not None and abs(batches - self.batches) > self.tolerance * self.batches:
                wrong.append(f"{batches} batches an epoch, declared {self.batches}")
        return not wrong, rows, {"batches_per_epoch": batches, "wrong": wrong}


# --- splits


class _BetweenSplits(_MeasuringExpectation):
    """Splits are told apart by a column (`split`) whose value `train` marks the training rows, or by `cut`: the share
    of rows, in order, that belongs to the first one."""

    split: str | None = None
    train: str = "train"
    cut: float = 0.5

    def parts(self, data: dict[str, Measured], rows: int) -> dict[str, Any]:
        """Rows of each split, the training one first."""
        if self.split is None:
            border = round(self.cut * rows)
            return {"first": np.arange(border), "second": np.arange(border, rows)}
        labels = np.asarray([str(label) for label in data[self.split].values])
        names = dict.fromkeys(labels.tolist())
        if self.train not in names:
            raise ValueError(f"column {self.split!r} never says {self.train!r}; it says {', '.join(map(repr, names))}")
        order = [self.train, *(name for name in names if name != self.train)]
        return {name: np.flatnonzero(labels == name) for name in order}


class ExpectColumnNotToDriftBetweenSplits(_BetweenSplits):
    """Expect a column to have the same level and spread in every split as in the first, as far as its memory lets one
    tell.

    A series that wanders (an autoregression, a price) differs between any two stretches; the test counts only as many
    independent samples as there are (`measures.drift`). With one expectation per column, lower `level` accordingly.
    """

    column: str
    level: float = measures.DRIFT_LEVEL
    success_keys: ClassVar[tuple[str, ...]] = ("column", "split", "train", "cut", "level")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = np.asarray(data[self.column].values, dtype=np.float64)
        first, *others = self.parts(data, rows).items()
        told = {name: measures.drift(values[first[1]], values[part]) for name, part in others}
        known = [found.p_value for found in told.values() if np.isfinite(found.p_value)]
        if not known:
            raise ValueError(
                f"fewer than {measures.FEWEST} numbers in a split of column {self.column!r}: drift cannot be told"
            )
        least = min(1.0, min(known) * len(known))
        details = {
            name: {
                "shift": found.shift,
                "log_spread_ratio": found.spread,
                "p_value": found.p_value,
                "effective_samples": list(found.effective),
            }
            for name, found in told.items()
        }
        return least >= self.level, least, details


class ExpectSplitsNotToShareWindows(_BetweenSplits):
    """Expect no block of `length` consecutive rows of the columns to occur in two splits (blocks that never change
    apart).

    Found by hash: a duplicated file, a window that straddles the border, rows shuffled between splits in stretches.
    """

    column_list: list[str]
    length: int = 8
    success_keys: ClassVar[tuple[str, ...]] = ("column_list", "split", "train", "cut", "length")

    def columns(self) -> list[str | None]:
        return [*self.column_list, self.split]

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        series = np.stack([np.asarray(data[name].values, dtype=np.float64) for name in self.column_list], axis=1)
        parts = list(self.parts(data, rows).items())
        found = {}
        where: list[int] = []
        for number, (earlier, before) in enumerate(parts):
            for later, after in parts[number + 1 :]:
                shared = measures.shared_blocks(series[before], series[after], self.length)
                if len(shared):
                    found[f"{earlier}, {later}"] = len(shared)
                    where += after[shared].tolist()
        return not found, sum(found.values()), {"shared": found, **_rows(sorted(where))}


class ExpectSplitsNotToShareValues(_BetweenSplits):
    """Expect no value of a column (an entity, a file, a subject) to occur in two splits."""

    column: str
    split: str
    success_keys: ClassVar[tuple[str, ...]] = ("column", "split", "train")

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = np.asarray(data[self.column].values, dtype=object)
        homes: dict[Any, set[str]] = {}
        for name, part in self.parts(data, rows).items():
            for value in pd.unique(values[part]):
                if not pd.isna(value):
                    homes.setdefault(value, set()).add(name)
        shared = [value for value, names in homes.items() if len(names) > 1]
        told = [{"value": _plain(value), "splits": sorted(homes[value])} for value in shared[:SAMPLE]]
        return not shared, len(shared), {"shared": told}


class ExpectScalerToBeFittedOnTrainOnly(_BetweenSplits):
    """Expect `center` and `scale` (one number per column) to be mean and deviation of the training rows alone."""

    column_list: list[str]
    center: list[float]
    scale: list[float]
    tolerance: float = 1e-3
    success_keys: ClassVar[tuple[str, ...]] = ("column_list", "center", "scale", "split", "train", "cut", "tolerance")

    def columns(self) -> list[str | None]:
        return [*self.column_list, self.split]

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = np.stack([np.asarray(data[name].values, dtype=np.float64) for name in self.column_list], axis=1)
        train = next(iter(self.parts(data, rows).values()))
        rest = np.setdiff1d(np.arange(rows), train)
        source = measures.scaler_source(
            np.asarray(self.center), np.asarray(self.scale), values[train], values[rest], tolerance=self.tolerance
        )
        return source == "train", source, {"train_mean": np.nanmean(values[train], axis=0).tolist()}


class ExpectColumnRangesToAgreeAcrossSets(_MeasuringExpectation):
    """Expect the typical magnitude of the columns to agree across data sets (`set_column`) within a factor `max_ratio`.

    Sets of unlike scale that are mixed unscaled teach a model only the largest.
    """

    column_list: list[str]
    set_column: str
    max_ratio: float = 100.0
    success_keys: ClassVar[tuple[str, ...]] = ("column_list", "set_column", "max_ratio")

    def columns(self) -> list[str | None]:
        return [*self.column_list, self.set_column]

    def measure(self, data: dict[str, Measured], rows: int) -> tuple[bool, Any, dict[str, Any]]:
        values = np.stack([np.asarray(data[name].values, dtype=np.float64) for name in self.column_list], axis=1)
        labels = np.asarray([str(label) for label in data[self.set_column].values])
        told = measures.typical_magnitudes({name: values[labels == name] for name in dict.fromkeys(labels.tolist())})
        known = [size for size in told.values() if np.isfinite(size) and size > 0]
        ratio = max(known) / min(known) if known else 1.0
        return ratio <= self.max_ratio, ratio, {"typical_magnitude": told}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
