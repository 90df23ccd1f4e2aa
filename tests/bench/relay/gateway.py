"""SGLang's gateway, in Rust, before a worker that only writes. `python -m tests.bench.relay.gateway PORT RATE`.

    tests/bench client ── HTTP ──> the gateway (measured) ── HTTP ──> floor.py, as Chat Completions

It passes on the bytes of its worker: no tape, no resuming, no state. What it costs is what an HTTP proxy in Rust costs.
Needs the wheel `sglang-router`, which nothing else here uses.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from engine.cpu import vision_shim
from tests.program import ROOT, free_port

INSTALLED = find_spec("sglang_router") is not None


def main(port: int, rate: str) -> None:
    """Serve until terminated."""
    vision_shim.install()  # before anything of SGLang's is imported
    from sglang_router.launch_router import launch_router, parse_router_args

    worker = free_port()
    command = [sys.executable, "-m", "tests.bench.relay.floor", str(worker), rate]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wanted = {
                "--host": "127.0.0.1",
                "--port": str(port),
                "--worker-urls": f"http://127.0.0.1:{worker}",
                "--policy": "round_robin",
                "--prometheus-port": str(free_port()),
                "--log-level": "error",
            }
            launch_router(parse_router_args([word for pair in wanted.items() for word in pair]))
        finally:
            process.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
