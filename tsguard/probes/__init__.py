"""Probes: measurements, arrays in and numbers out. A probe never judges; rules and checks do."""
