"""How two suite results are compared: everything but meta and run ids, floats to the last few digits, NaN equal to
NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

import tsguard.expect
from tsguard.expect.validation import raised


def differences(ours: Any, stock: Any) -> list[str]:
    """Every place where two suite results say different things."""
    found = []
    if ours.success != stock.success:
        found.append(f"success: {ours.success} against {stock.success}")
    if ours.statistics != stock.statistics:
        found.append(f"statistics: {ours.statistics} against {stock.statistics}")
    if [each.expectation_config.type for each in ours.results] != [
        each.expectation_config.type for each in stock.results
    ]:
        found.append("order of the results")
        return found
    for mine, theirs in zip(ours.results, stock.results, strict=True):
        config = mine.expectation_config
        place = f"{config.type}({ {key: value for key, value in config.kwargs.items() if key != 'batch_id'} })"
        if config.kwargs != theirs.expectation_config.kwargs:
            found.append(f"{place}: kwargs of the other are {theirs.expectation_config.kwargs}")
        if bool(mine.success) != bool(theirs.success):
            found.append(f"{place}: success {mine.success} against {theirs.success}")
        if raised(mine) != raised(theirs):
            found.append(
                f"{place}: raised {raised(mine)} against {raised(theirs)} {mine.exception_info} {theirs.exception_info}"
            )
        elif not same(mine.result, theirs.result):
            found.append(f"{place}: {mine.result} against {theirs.result}")
    return found


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return (
            isinstance(theirs, dict)
            and ours.keys() == theirs.keys()
            and all(same(ours[key], theirs[key]) for key in ours)
        )
    if isinstance(ours, pd.DataFrame):
        return isinstance(theirs, pd.DataFrame) and ours.equals(theirs)
    if isinstance(ours, list | tuple):
        return isinstance(theirs, list | tuple) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if _missing(ours) or _missing(theirs):
        return _missing(ours) and _missing(theirs)
    if isinstance(ours, float | np.floating) or isinstance(theirs, float | np.floating):
        single = isinstance(ours, np.float32) or isinstance(theirs, np.float32)
        return isinstance(theirs, int | float | np.number) and math.isclose(
            ours, theirs, rel_tol=1e-5 if single else 1e-9, abs_tol=1e-9
        )
    return bool(ours == theirs)


def _missing(value: Any) -> bool:
    return (
        value is None
        or value is pd.NaT
        or (isinstance(value, float | np.floating | np.datetime64) and bool(pd.isna(value)))
    )


def disagreements(suite: Any, table: Any, data: Any = None, result_format: Any = "SUMMARY") -> list[str]:
    """Our answer on `data` (by default the table itself) against stock GX on `table.to_pandas()`."""
    ours = tsguard.expect.validate(suite, table if data is None else data, result_format=result_format)
    stock = tsguard.expect.validate(suite, table.to_pandas(), engine="pandas", result_format=result_format)
    return differences(ours, stock)
