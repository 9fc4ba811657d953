"""Great Expectations itself: imported quietly, asked for one metric of a small frame, or for a whole suite.

This is the only module that touches GX's engines and contexts. Everything is run with GX's own warnings and progress
bars off, and locally: the caller's filters and `warnings.showwarning` are as they were afterwards.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SOURCE, ASSET = "tsguard", "data"
BATCH_ID = f"{SOURCE}-{ASSET}"
"""GX names a batch by source and asset; both routes use the same, so that metric ids agree."""


@contextmanager
def quiet() -> Iterator[None]:
    """GX warns of its own deprecations and lets `logging` capture every warning: neither reaches the caller."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("great_expectations", "py.warnings")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def engine_on(frame: pd.DataFrame) -> Any:
    """GX's pandas engine with one frame loaded."""
    from great_expectations.execution_engine import PandasExecutionEngine

    return PandasExecutionEngine(batch_data_dict={BATCH_ID: frame})


def process(configurations: Sequence[Any], engine: Any) -> list[Any]:
    """Expectations with suite parameters filled in, and in the order in which GX judges them (column by column)."""
    from great_expectations.validator.validator import Validator

    processed: list[Any] = Validator(execution_engine=engine).process_expectations_for_validation(list(configurations))
    return processed


def metric_on(frame: pd.DataFrame, configuration: Any) -> Any:
    """One metric, with all that it depends on, computed by GX on a small frame."""
    from great_expectations.validator.metrics_calculator import MetricsCalculator

    return MetricsCalculator(engine_on(frame), show_progress_bars=False).get_metric(configuration)


@contextmanager
def _batch(frame: pd.DataFrame) -> Iterator[Any]:
    """A frame as a batch of a context that lives only in memory; the caller's own current context stays current."""
    import great_expectations as gx
    from great_expectations.data_context.data_context.context_factory import project_manager
    from great_expectations.exceptions import DataContextRequiredError

    try:
        current = project_manager.get_current_project()
    except DataContextRequiredError:
        current = None
    try:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas(SOURCE).add_dataframe_asset(ASSET)
        definition = asset.add_batch_definition_whole_dataframe("all")
        yield context, definition
    finally:
        project_manager.set_project(current)


@contextmanager
def validator_on(frame: pd.DataFrame) -> Iterator[Any]:
    """GX's own validator over a frame."""
    with _batch(frame) as (context, definition):
        yield context.get_validator(batch_request=definition.build_batch_request({"dataframe": frame}))


def judge(configurations: Sequence[Any], frame: pd.DataFrame, result_format: Any) -> list[Any]:
    """What stock GX answers on a frame to each expectation; an exception that GX lets through stands in its place."""
    answers: list[Any] = []
    if not configurations:
        return answers
    with validator_on(frame) as validator:
        for configuration in configurations:
            runtime = {"result_format": copy(result_format)}
            try:
                answers += validator.graph_validate(configurations=[configuration], runtime_configuration=runtime)
            except Exception as error:
                answers.append(error)
    return answers


def validate_suite(suite: Any, frame: pd.DataFrame, result_format: Any) -> Any:
    """The whole of a suite by stock GX: `batch.validate`, as its documentation has it."""
    with _batch(frame) as (_, definition):
        return definition.get_batch({"dataframe": frame}).validate(suite, result_format=result_format)
