"""Benchmark of starts, restarts and memory."""
