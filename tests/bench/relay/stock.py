"""Stock SGLang's HTTP server over a scheduler that only counts. `python -m tests.bench.relay.stock PORT RATE`.

    tests/bench client ── HTTP ──> stock server, its tokenizer manager (measured)
                                      │ ZMQ                    ▲
                                   the stub ─ token ids ─> stock detokenizer

All but the scheduler is SGLang as it is installed: this is what users of its server have.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from engine.cpu import vision_shim
from engine.settings import EngineSettings, prepare_environment
from tests.bench.relay.stub import CONTEXT, MODEL, RATE, run_stub

vision_shim.install()  # before anything of SGLang's is imported, here and in the spawned processes


def main(port: int, rate: float) -> None:
    """Serve until terminated."""
    os.environ[RATE] = str(rate)
    prepare_environment(EngineSettings(MODEL, "stock"))
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import ServerArgs

    arguments: dict[str, Any] = {
        "model_path": str(MODEL),
        "served_model_name": "scripted",
        "device": "cpu",
        "dtype": "float32",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "context_length": CONTEXT,
        "host": "127.0.0.1",
        "port": port,
        "log_level": "error",
        "skip_server_warmup": True,
    }
    launch_server(ServerArgs(**arguments), run_scheduler_process_func=run_stub)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
