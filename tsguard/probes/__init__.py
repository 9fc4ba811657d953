"""Probes: arrays in, numbers out, no judgement."""
