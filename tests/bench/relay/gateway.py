"""SGLang's gateway, in Rust, before a worker that only writes. `python -m tests.bench.relay.gateway PORT RATE`.

    tests/bench client ── HTTP ──> the gateway (measured) ── HTTP ──> floor.py, as Chat Completions

It passes on the bytes of its worker: no tape, no resuming, no state. What it costs is what an HTTP proxy in Rust costs.
Needs the wheel `sglang-router` (30 MB), which nothing else here uses: `pip install --no-deps sglang-router==0.3.2`.
It is started through its Python classes, not through its command line, whose module imports all of SGLang. Before it
takes a worker for an HTTP one it asks it for gRPC, over HTTP/2, and waits 5 s for each kind: the floor hangs up.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from tests.program import ROOT, free_port

INSTALLED = find_spec("sglang_router") is not None


def main(port: int, rate: str) -> None:
    """Serve until terminated."""
    from sglang_router.router import Router  # type: ignore[import-not-found]
    from sglang_router.router_args import RouterArgs  # type: ignore[import-not-found]

    worker = free_port()
    command = [sys.executable, "-m", "tests.bench.relay.floor", str(worker), rate]
    arguments = RouterArgs(
        host="127.0.0.1",
        port=port,
        worker_urls=[f"http://127.0.0.1:{worker}"],
        worker_startup_check_interval=1,
        policy="round_robin",
        prometheus_port=free_port(),
        log_level="error",
        shutdown_grace_period_secs=1,
    )
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            Router.from_args(arguments).start()
        finally:
            process.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
