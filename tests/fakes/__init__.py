"""The ports in memory, and an engine that writes tapes: small, but with the real semantics."""

from tests.fakes.engine import MODEL, FakeEngine
from tests.fakes.store import MemoryStore

__all__ = ["MODEL", "FakeEngine", "MemoryStore"]
