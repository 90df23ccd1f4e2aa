"""Benchmark of the CPU engine against its peers."""
