"""Checks: named questions about a Subject, registered in one table and run one by one, so that none can hurt another."""
