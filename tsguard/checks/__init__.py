"""Checks: named questions about a Subject, in one table, run one by one so that none can hurt another."""
