"""Diagnosis by experiment: rules propose, experiments prove, and what heals is the cause."""

from __future__ import annotations

from tsguard.diagnosis.aftermath import settled
from tsguard.diagnosis.outcome import diagnose
from tsguard.diagnosis.record import Record, Start
from tsguard.diagnosis.signs import symptoms

__all__ = ["Record", "Start", "diagnose", "settled", "symptoms"]
