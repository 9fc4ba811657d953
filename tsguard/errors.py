"""Mistakes that a user can mend, told apart from our own bugs.

    TsguardError                 printed without a traceback, exit code 2 unless said otherwise
    ├── ConfigError              run.yaml, options, import paths
    ├── DataError                files, tables, arrays
    ├── SubjectError             models, losses and optimizers that cannot be judged or rebuilt
    ├── BackendError             a wrong KERAS_BACKEND, a device that is not there
    ├── StoreError               folders and files that cannot be read or written
    └── GateError                policies that cannot be evaluated

Every message answers four questions: where, what was received, what was expected, what to do.
"""

from __future__ import annotations


class TsguardError(Exception):
    """A mistake that the user can mend; the doors print it without a traceback."""


class ConfigError(TsguardError):
    """A configuration, option or import path that cannot be used."""


class DataError(TsguardError):
    """Data that cannot be read or that is not what was declared."""


class SubjectError(TsguardError):
    """A model, loss or optimizer that cannot be judged or rebuilt."""


class BackendError(TsguardError):
    """The framework underneath is not the one that is needed."""


class StoreError(TsguardError):
    """A folder or file of a run that cannot be read or written."""


class GateError(TsguardError):
    """A policy that cannot be evaluated."""


def explain(place: str, *, received: str, expected: str, todo: str) -> str:
    """The four answers as one message, in the order in which a reader asks for them."""
    return f"{place}: received {received}. Expected {expected}. {todo}"


class Interrupted(BaseException):
    """A signal ended a run after a checkpoint; the doors turn it into the exit code 128 + number.

    No mistake, and no Exception either: code that goes on after errors must not go on after this.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}; a resumable checkpoint was made")
        self.number = number
