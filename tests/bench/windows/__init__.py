"""Benchmark of the windows in which a fault can be seen."""
