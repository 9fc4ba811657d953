"""`validate`: a GX suite judged by GX, with metrics from one streaming pass over Arrow.

An expectation is a pure judge: it names the metrics that it wants and judges whatever supplies them. Those that the
pass cannot supply are handed to GX's own pandas engine together with the columns they need; the meta of the result says
which and why. What could not be evaluated carries its exception and is never a success.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tsguard.errors import ConfigError, explain
from tsguard.expect import stock
from tsguard.expect.source import Source, open_source
from tsguard.expect.spill import Budget
from tsguard.expect.suites import load_suite

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult

    from tsguard.expect.profile import Profile

ENGINES = ("arrow", "pandas")
RESULT_FORMATS = ("BOOLEAN_ONLY", "BASIC", "SUMMARY", "COMPLETE")
SERVED_MODULES = ("great_expectations.expectations.core.", "tsguard.expect.timeseries")
"""Where the expectations come from whose metrics are known to mean what GX means; those of others go to pandas."""


@dataclass
class _Plan:
    """One expectation on its way: its metrics promised by the pass, or the reason why pandas is asked."""

    configuration: Any
    columns: tuple[str, ...] | None  # None: it may look at any column
    unknown: bool = False  # it names a column that is not there
    reason: str = ""
    promises: dict[Any, Any] = field(default_factory=dict)
    accumulators: frozenset[Hashable] = frozenset()
    expectation: Any = None
    dependencies: Any = None
    answer: Any = None


def validate(
    suite: Any, data: Any, engine: str = "arrow", result_format: Any = "SUMMARY"
) -> ExpectationSuiteValidationResult:
    """Judge `data` by a Great Expectations suite, and return GX's own result object.

    Args:
        suite: an `ExpectationSuite`, a list of expectations, a dictionary, the path of a JSON file that GX wrote, or
            the name of one (`etth1`; a project's own in suites/ come first).
        data: a pyarrow table, record batches or a reader of them, a dataset, the path of a Parquet file or folder, or a
            pandas frame. Only columns that a handed-over expectation needs are ever held in memory as a whole.
        engine: "arrow" (one streaming pass) or "pandas" (stock GX on the data as a frame).
        result_format: as in GX: "BOOLEAN_ONLY", "BASIC", "SUMMARY", "COMPLETE", or a dictionary. Index lists are row
        positions.

    Returns:
        An `ExpectationSuiteValidationResult`; `meta["tsguard"]` says which expectations pandas judged, and why.
    """
    require_engine(engine)
    with stock.quiet():
        result_format = _result_format(result_format)
        loaded = load_suite(suite)
        source = open_source(data)
        if engine == "pandas":
            return stock.validate_suite(loaded, _frame(source, None, []), result_format)
        return _by_arrow(loaded, source, result_format)


def require_engine(engine: Any) -> None:
    """A ConfigError unless this is an engine of ours."""
    if engine not in ENGINES:
        raise ConfigError(
            explain("engine", received=repr(engine), expected=" or ".join(map(repr, ENGINES)), todo="Use one of them.")
        )


def _result_format(given: Any) -> Any:
    name = given.get("result_format") if isinstance(given, Mapping) else getattr(given, "value", given)
    if name not in RESULT_FORMATS:
        raise ConfigError(
            explain(
                "result_format",
                received=repr(given),
                expected=", ".join(RESULT_FORMATS),
                todo="Use one of them, or a dictionary.",
            )
        )
    return dict(given) if isinstance(given, Mapping) else name


def _by_arrow(suite: Any, source: Source, result_format: Any) -> ExpectationSuiteValidationResult:
    from tsguard.expect.profile import Profile

    with Budget() as budget:
        return _judged(suite, Profile(source, budget), result_format)


def _judged(suite: Any, profile: Profile, result_format: Any) -> ExpectationSuiteValidationResult:
    source = profile.source
    engine = stock.engine_on(profile.shadow())
    plans = [
        _plan(configuration, engine, profile, result_format)
        for configuration in stock.process(suite.expectation_configurations, engine)
    ]
    profile.forget(
        frozenset().union(*(plan.accumulators for plan in plans if plan.reason or plan.answer)),
        frozenset().union(*(plan.accumulators for plan in plans if not plan.reason and not plan.answer)),
    )
    if not source.replayable:
        profile.keep_columns = frozenset(_needed(plans, source))
    if not source.opaque:
        profile.run()
    _judge_served(plans, profile, result_format)
    _hand_over(plans, profile, result_format)
    return _assemble(suite, plans, profile)


def _plan(configuration: Any, engine: Any, profile: Profile, result_format: Any) -> _Plan:
    from tsguard.expect.profile import NotServedError

    configuration = deepcopy(configuration)
    configuration.kwargs["batch_id"] = stock.BATCH_ID
    plan = _Plan(configuration, columns=())
    try:
        expectation = plan.expectation = configuration.to_domain_obj()
        plan.columns = _columns(expectation, result_format)
        plan.unknown = not set(plan.columns or ()) <= set(profile.source.schema.names)
        dependencies = plan.dependencies = expectation.get_validation_dependencies(
            execution_engine=engine, runtime_configuration={"result_format": copy(result_format)}
        )
    except Exception as error:
        plan.answer = _could_not(configuration, error, traceback.format_exc())
        return plan
    try:
        if profile.source.opaque:
            raise NotServedError(profile.source.opaque)
        if plan.unknown:
            raise NotServedError("a column that is not there")
        if not type(expectation).__module__.startswith(SERVED_MODULES):
            raise NotServedError("an expectation of one's own")
        if type(expectation).__name__.endswith(("BeOfType", "BeInTypeList")):
            _typed(plan.columns, profile)
        for wanted in dependencies.get_metric_configurations():
            plan.promises[wanted.id] = profile.supply(wanted, dependencies.result_format)
    except NotServedError as why:
        plan.reason = str(why)
    plan.accumulators = profile.asked()
    return plan


def _typed(columns: Sequence[str] | None, profile: Profile) -> None:
    """GX looks into the values of object columns to tell their type; whether there are any is known here."""
    from tsguard.expect.columns import kind_of
    from tsguard.expect.profile import PLAIN_KINDS, NotServedError

    for column in columns or ():
        if kind_of(profile.datatype(column)) not in PLAIN_KINDS:
            raise NotServedError("a type that pandas tells by its values")


def _columns(expectation: Any, result_format: Any) -> tuple[str, ...] | None:
    """The columns that stock GX would look at, or None if that cannot be told."""
    kwargs = expectation.configuration.kwargs
    if not type(expectation).__module__.startswith(SERVED_MODULES) or kwargs.get("row_condition"):
        return None
    if hasattr(expectation, "columns"):  # one of ours
        return tuple(dict.fromkeys(column for column in expectation.columns() if column is not None))
    if isinstance(result_format, Mapping) and (
        result_format.get("unexpected_index_column_names") or result_format.get("include_unexpected_rows")
    ):
        return None
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs] + list(
        kwargs.get("column_list") or []
    )
    return tuple(dict.fromkeys(named))


def _needed(plans: Sequence[_Plan], source: Source) -> set[str]:
    """Columns that pandas will be asked about."""
    waiting = [plan for plan in plans if plan.reason and not plan.answer and not plan.unknown]
    if any(plan.columns is None for plan in waiting):
        return set(source.schema.names)
    return {column for plan in waiting for column in plan.columns or ()}


def _judge_served(plans: Sequence[_Plan], profile: Profile, result_format: Any) -> None:
    served = [plan for plan in plans if not plan.reason and not plan.answer]
    if profile.rows == 0:
        _ask_stock(served, profile.shadow(), result_format)
        return
    engine = stock.engine_on(profile.shadow())
    for plan in served:
        crash = next((profile.crashes[key] for key in plan.accumulators if key in profile.crashes), None)
        try:
            if crash is not None:
                plan.answer = _crashed(plan, crash, result_format)
                continue
            metrics = {key: promise() for key, promise in plan.promises.items()}
            plan.answer = _refusal_of_nothing(plan, profile, result_format) or _verdict(
                plan, metrics, engine, {"result_format": deepcopy(result_format)}
            )
        except Exception as error:
            plan.answer = _could_not(plan.configuration, error, traceback.format_exc())


def _verdict(plan: _Plan, metrics: dict[Any, Any], engine: Any, runtime: dict[str, Any]) -> Any:
    """GX's judgement of one expectation."""
    from great_expectations.expectations.expectation import Expectation

    judge = type(plan.expectation).metrics_validate
    if judge is not Expectation.metrics_validate:
        return judge(plan.expectation, metrics=metrics, execution_engine=engine, runtime_configuration=runtime)
    return judge(_Asked(plan), metrics=metrics, execution_engine=engine, runtime_configuration=runtime)


class _Asked:
    """An expectation that has said which metrics it wants: GX asks again when it judges, at most of the cost."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def get_validation_dependencies(self, **options: Any) -> Any:
        return self._plan.dependencies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan.expectation, name)


def _crashed(plan: _Plan, crash: Any, result_format: Any) -> Any:
    """GX's own account of the failure, told by the batch at which it happened."""
    answer = _stock([plan.configuration], crash.frame, result_format)[0]
    return answer if raised(answer) else _could_not(plan.configuration, crash.error, crash.trace)


def _refusal_of_nothing(plan: _Plan, profile: Profile, result_format: Any) -> Any:
    """GX may refuse a column of which every value is missing by its type alone: ask it with a single missing row."""
    if not profile.considered_nothing(plan.accumulators):
        return None
    answer = _stock([plan.configuration], profile.blank(), result_format)[0]
    return answer if raised(answer) else None


def _hand_over(plans: Sequence[_Plan], profile: Profile, result_format: Any) -> None:
    waiting = [plan for plan in plans if plan.reason and not plan.answer]
    lost = [plan for plan in waiting if plan.unknown]
    _ask_stock(lost, profile.shadow() if not profile.source.opaque else profile.source.frame, result_format)
    left = [plan for plan in waiting if not plan.unknown]
    if left:
        names = [name for name in profile.source.schema.names if name in _needed(left, profile.source)]
        _ask_stock(left, _frame(profile.source, names, profile.kept), result_format)


def _ask_stock(plans: Sequence[_Plan], frame: Any, result_format: Any) -> None:
    for plan, answer in zip(plans, _stock([plan.configuration for plan in plans], frame, result_format), strict=True):
        plan.answer = answer


def _stock(configurations: Sequence[Any], frame: pd.DataFrame, result_format: Any) -> list[Any]:
    answers = stock.judge(configurations, frame, result_format)
    return [
        _could_not(configuration, answer, "".join(traceback.format_exception(answer)))
        if isinstance(answer, Exception)
        else answer
        for configuration, answer in zip(configurations, answers, strict=True)
    ]


def _frame(source: Source, columns: Sequence[str] | None, kept: Sequence[pa.RecordBatch]) -> pd.DataFrame:
    """Columns of the data as a pandas frame: the one that was given, or made from Arrow."""
    if source.frame is not None:
        return source.frame
    names = list(source.schema.names) if columns is None else list(columns)
    batches = [batch.select(names) for batch in kept] if kept else list(source.batches(names))
    schema = pa.schema([source.schema.field(name) for name in names])
    return pa.Table.from_batches(batches, schema).to_pandas()


def _could_not(configuration: Any, error: BaseException, trace: str) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.validator.exception_info import ExceptionInfo

    info = ExceptionInfo(exception_traceback=trace, exception_message=f"{type(error).__name__}: {error}")
    return ExpectationValidationResult(success=False, exception_info=info, expectation_config=configuration)


def raised(answer: Any) -> bool:
    """Whether an expectation could not be evaluated."""
    info = answer.exception_info or {}
    return bool(info["raised_exception"]) if "raised_exception" in info else bool(info)


def _assemble(suite: Any, plans: Sequence[_Plan], profile: Profile) -> ExpectationSuiteValidationResult:
    from great_expectations import __version__
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.validator.validator import calc_validation_statistics

    for plan in plans:
        plan.answer.success = bool(
            plan.answer.success
        )  # some of GX's judges answer with a numpy bool, which JSON has not
        if plan.reason:
            plan.answer.meta = {**(plan.answer.meta or {}), "tsguard": {"engine": "pandas", "reason": plan.reason}}
    # GX puts those first whose metrics failed (their exceptions are filed by metric), and the rest in the suite's order
    answers = sorted(
        (plan.answer for plan in plans),
        key=lambda answer: "raised_exception" in (answer.exception_info or {"raised_exception": False}),
    )
    statistics = calc_validation_statistics(answers)
    handed = [
        {"expectation": plan.configuration.type, "columns": list(plan.columns or ()), "reason": plan.reason}
        for plan in plans
        if plan.reason
    ]
    return ExpectationSuiteValidationResult(
        results=answers,
        success=statistics.success,
        suite_name=suite.name,
        statistics={
            "evaluated_expectations": statistics.evaluated_expectations,
            "successful_expectations": statistics.successful_expectations,
            "unsuccessful_expectations": statistics.unsuccessful_expectations,
            "success_percent": statistics.success_percent,
        },
        meta={
            "great_expectations_version": __version__,
            "tsguard": {
                "engine": "arrow",
                "rows": profile.rows,
                "served": len(plans) - len(handed),
                "handed_over": handed,
            },
        },
        batch_id=stock.BATCH_ID,
    )
