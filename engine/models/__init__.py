"""Models: what they are called, how their folders are made, and whether a folder can be served."""

from engine.models.prepare import DEFAULT_MODEL, Report, known_models, prepare

__all__ = ["DEFAULT_MODEL", "Report", "known_models", "prepare"]
