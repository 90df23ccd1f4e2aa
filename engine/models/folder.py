"""Checks a Hugging Face folder before minutes are spent on loading it.

Only sizes and headers are read: a safetensors file says in its first bytes how long it must be.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from engine.contract import ModelUnusable
from engine.models import fitting

_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 * 2**20
_MAX_JSON = 64 * 2**20


def check(folder: Path) -> None:
    """Raise ModelUnusable, naming the file, unless SGLang can be expected to load `folder`."""
    config = read_json(folder / "config.json")
    fitting.check_architecture(folder / "config.json", config)
    if not (folder / "tokenizer.json").is_file():
        raise ModelUnusable(f"{folder / 'tokenizer.json'} is missing: a fast tokenizer is needed")
    fitting.check_vocabulary(folder / "tokenizer.json", config, read_json(folder / "tokenizer.json"))
    shapes: dict[str, Any] = {}
    for name, tensors in _weight_files(folder).items():
        shapes |= _check_weights(folder / name, tensors)
    fitting.check_shapes(folder / "config.json", config, shapes)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file. Raises ModelUnusable naming it."""
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing")
    if (size := path.stat().st_size) > _MAX_JSON:
        raise ModelUnusable(f"{path} has {size} bytes, expected at most {_MAX_JSON}")
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelUnusable(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnusable(f"{path} must hold a JSON object")
    return value


def _weight_files(folder: Path) -> dict[str, set[str]]:
    """Return weight file -> tensors that it must hold."""
    if (folder / _INDEX).is_file():
        return _indexed(folder / _INDEX)
    if (folder / "model.safetensors").is_file():
        return {"model.safetensors": set()}
    raise ModelUnusable(f"{folder} holds no weights: expected model.safetensors or {_INDEX}")


def _indexed(index: Path) -> dict[str, set[str]]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelUnusable(f"{index} has no weight_map")
    files: dict[str, set[str]] = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelUnusable(f"{index}: tensor {tensor} is said to be in {name!r}, which is no file name")
        files.setdefault(name, set()).add(tensor)
    return files


def _check_weights(path: Path, tensors: set[str]) -> dict[str, Any]:
    """Return the shapes of a file's tensors."""
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing, though the index lists it")
    header, begin = _header(path)
    header.pop("__metadata__", None)
    if absent := tensors - header.keys():
        raise ModelUnusable(f"{path} lacks tensor {min(absent)}, though the index lists it")
    try:
        end = begin + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise ModelUnusable(f"{path} has a damaged safetensors header") from error
    if (size := path.stat().st_size) != end:
        raise ModelUnusable(f"{path} has {size} bytes, its header says {end}: fetch it again")
    return {name: tensor.get("shape") for name, tensor in header.items()}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors header and where the data begins."""
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, path.stat().st_size - 8):
            raise ModelUnusable(f"{path} is not a whole safetensors file: fetch it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ModelUnusable(f"{path} has a damaged safetensors header") from error
    if not isinstance(header, dict):
        raise ModelUnusable(f"{path} has a damaged safetensors header")
    return header, 8 + length
