"""Runs the roles of the program on one machine, and restarts what dies."""
