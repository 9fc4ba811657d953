"""Great Expectations at the speed of Arrow, and the expectations for time series that it lacks.

`validate` judges any GX suite with GX's own code, while one streaming pass over Arrow batches supplies the metrics.
Importing this package costs nothing: Great Expectations (about two seconds) comes in with the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsguard.expect.validation import validate as validate

_HOMES = {
    "validate": "tsguard.expect.validation",
    "load_suite": "tsguard.expect.suites",
    **dict.fromkeys(
        (
            "ExpectColumnValuesToBeFinite",
            "ExpectColumnTimeToIncreasePerEntity",
            "ExpectColumnIntervalToBeRegular",
            "ExpectColumnGapsToBeShorterThan",
            "ExpectColumnStuckRunsToBeShorterThan",
            "ExpectColumnSentinelValuesToBeAbsent",
            "ExpectSplitsNotToShareWindows",
            "ExpectSplitsNotToShareValues",
            "ExpectScalerToBeFittedOnTrainOnly",
            "ExpectColumnClassSharesToBeBetween",
            "ExpectColumnNotToDriftBetweenSplits",
            "ExpectColumnTimestampsToSurviveFloat32",
            "ExpectTableVolumeToBeAsDeclared",
            "ExpectColumnRangesToAgreeAcrossSets",
        ),
        "tsguard.expect.timeseries",
    ),
}

__all__ = sorted([*_HOMES, "measures"])


def __getattr__(name: str) -> Any:
    if name == "measures":
        return import_module("tsguard.expect.measures")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
