"""`chatserver random-model`: write a random model of DeepSeek-V3's architecture, of any size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from chatserver.errors import StartupError

HELP = "write a random model of DeepSeek-V3's architecture, of any size, as a folder that can be served"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `chatserver random-model`: the keys of config.json as flags."""
    from engine.models.deepseek import Dimensions  # noqa: PLC0415 - standard library only

    parser.add_argument("folder", type=Path, help="the folder to write; it must not be there yet")
    for field in fields(Dimensions):
        assert field.default is not MISSING
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        text = f"(default: {field.default})"
        parser.add_argument(
            flag, type=kind, default=field.default, metavar="TYPE" if kind is str else "N", help=text
        )


def run(options: Mapping[str, Any]) -> int:
    """Write the model, say where, and return 0. Raises StartupError in one line that names the key."""
    from engine.contract import ModelUnusable  # noqa: PLC0415
    from engine.models.deepseek import Dimensions  # noqa: PLC0415
    from engine.models.tiny_deepseek import write  # noqa: PLC0415

    sizes = {field.name: options[field.name] for field in fields(Dimensions)}
    folder: Path = options["folder"]
    try:
        written = write(folder, Dimensions(**sizes), _report)
    except ModelUnusable as error:
        raise StartupError(str(error), exit_code=2) from error
    except OSError as error:
        raise StartupError(f"{error.filename or folder}: {error.strerror or error}", exit_code=1) from error
    size = sum(path.stat().st_size for path in written.iterdir())
    print(f"{written}: {size / 1e6:.0f} MB; serve it with: make serve MODEL={written}")
    return 0


def _report(done: int, total: int, text: str) -> None:
    if total and sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{text} {done * 100 // total} %\x1b[K", end=end, file=sys.stderr, flush=True)
