"""Minimal reproduction: a failure becomes a Case, the Case is reduced, and what is left becomes a script and a test."""
