"""For all tests: how patient hypothesis is, JavaScript's packages, and which tests stay together in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import javascript as tools

slow = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("searching", **slow)
settings.register_profile("the same examples each time", **slow, derandomize=True)
settings.load_profile("the same examples each time")

GROUPS = {
    "engines": (
        "tests/engine/",
        "tests/e2e/test_deepseek.py",
        "tests/e2e/test_features.py",
        "tests/e2e/test_processes.py",
        "tests/e2e/test_real.py",
        "tests/e2e/test_reuse.py",
        "tests/e2e/test_scheduler_killed.py",
        "tests/e2e/test_starts.py",
        "tests/web/test_page_sglang.py",
    ),
    "programs": ("tests/e2e/",),
    "stores": ("tests/chatserver/adapters/",),
}
"""Tests that share what the whole session has once, a group for each process: the longest first. Others go by file.

All real engines are in one, so that no two compete for the processors and the memory.
"""


class Groups(LoadScopeScheduling):
    """Gives a process one group after another, each whole and in order: a file's, or one of `GROUPS`."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the group of a test."""
    return next(
        (name for name, begin in GROUPS.items() if nodeid.startswith(begin)), nodeid.partition("::")[0]
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> Groups:
    """Have xdist, where it is used, keep groups together. Its own `loadgroup` does not know this pytest's ids."""
    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest groups first, and see that all tests of the real engine are in theirs."""
    strays = [
        item.nodeid for item in items if "real" in item.fixturenames and group(item.nodeid) != "engines"
    ]
    if strays:
        raise pytest.UsageError(f"{strays[0]}: uses `real`; name its file in GROUPS of tests/conftest.py")
    if hasattr(config, "workerinput"):
        order = [*GROUPS]
        items.sort(
            key=lambda item: order.index(name) if (name := group(item.nodeid)) in order else len(order)
        )


@pytest.fixture(scope="session")
def javascript() -> Path:
    """The folder of the packages that JavaScript tests need, installed."""
    tools.install()
    return tools.MODULES
