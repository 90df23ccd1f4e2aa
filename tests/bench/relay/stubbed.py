"""This program with a scheduler that only counts. `python -m tests.bench.relay.stubbed serve|engine …`.

All but the scheduler is what users of the program have: store, web, and the engine's process with all that it loads.
"""

from __future__ import annotations

import sys

from chatserver.__main__ import main
from chatserver.service.supervision import roles
from chatserver.service.supervision.child import Launch
from chatserver.settings import Settings


def serve() -> None:
    """Have the supervisor start this module as its engine."""
    launch = roles._launch

    def launch_stubbed(command: str, settings: Settings) -> Launch:
        module = __spec__.name if command == "engine" else "chatserver"
        started = launch(command, settings)
        return Launch((sys.executable, "-m", module, command), started.environ)

    roles._launch = launch_stubbed


def engine() -> None:
    """Have what would run a scheduler run the stub."""
    from engine import child
    from tests.bench.relay.stub import run_stub

    child.run_scheduler = run_stub


if __name__ == "__main__":
    {"serve": serve, "engine": engine}[sys.argv[1]]()
    sys.exit(main())
