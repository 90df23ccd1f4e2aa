"""The page's modules under Node: unit tests, and the types of their JSDoc."""

from __future__ import annotations

from pathlib import Path

from tests.javascript import HERE, run

LIMIT = 300
"""Seconds."""


def test_modules() -> None:
    """Every `*.test.js` here."""
    tests = sorted(Path(__file__).parent.glob("*.test.js"))
    assert tests
    run("--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", *tests, timeout=LIMIT)


def test_types(javascript: Path) -> None:
    """JSDoc types, checked strictly."""
    run(javascript / "typescript" / "bin" / "tsc", "--project", HERE / "tsconfig.json", timeout=LIMIT)
