"""Makes a model folder from a recipe: checked, resumable, never half done.

    models/NAME.partial/   shards as they finish, and finished.json with size and sha256 of each
    models/NAME/           the same files and manifest.json, put in place by one rename
    models/NAME.lock       held while a process makes the folder

An interrupted run goes on after the last shard whose bytes are as finished.json says. A folder
whose manifest is missing, is of another recipe, or names a file of another size is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.contract import ModelUnusable

Report = Callable[[int, int, str], None]
"""Progress: (done bytes, total bytes, text). Total 0 = unknown."""

MANIFEST = "manifest.json"
_FINISHED = "finished.json"
_MARGIN = 64 * 2**20
"""Bytes of disk to leave free."""
_LOCK_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model folder. `make` returns its bytes; `size`: about how many (exact for weights)."""

    name: str
    size: int
    make: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one model folder.

    `version`: raised when the made files change. `source`: sha256 of what they are made from.
    `parts`: made in order, each once. `finish`: writes the small files that are not worth resuming
    (tokenizer, configuration) into the folder it is given.
    """

    name: str
    version: int
    source: str
    parts: tuple[Part, ...]
    finish: Callable[[Path], None]

    @property
    def size(self) -> int:
        """Return the size of all parts in bytes."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class _File:
    """What is known of a finished file. `size` in bytes."""

    size: int
    sha256: str


def make(recipe: Recipe, models: Path, report: Report) -> Path:
    """Return `models/NAME`, made if it is not there and whole.

    Raises ModelUnusable (no disk, another process holds the lock for too long) and OSError.
    """
    target = models / recipe.name
    if fault(recipe, target) is None:
        return target
    models.mkdir(parents=True, exist_ok=True)
    with _lock(models / f"{recipe.name}.lock", report):
        reason = fault(recipe, target)  # another process may have made it meanwhile
        if reason is None:
            return target
        if target.exists():
            report(0, recipe.size, f"{reason}; making it anew")
            shutil.rmtree(target)
        _cook(recipe, models, report)
    return target


def fault(recipe: Recipe, target: Path) -> str | None:
    """Return what is wrong with a made folder, or None if it can be used."""
    if not target.is_dir():
        return f"{target} is not there"
    manifest = _read_json(target / MANIFEST)
    if manifest is None:
        return f"{target} has no valid {MANIFEST}"
    if (manifest.get("version"), manifest.get("source")) != (recipe.version, recipe.source):
        return f"{target} was made by another version of this program"
    files = _files(manifest.get("files"))
    if not files:
        return f"{target / MANIFEST} lists no files"
    for name, expected in files.items():
        path = target / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected.size:
            got = "is missing" if size is None else f"has {size} bytes, expected {expected.size}"
            return f"{path} {got}"
    return None


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file so that after a crash it is there completely or not at all."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_folder(path.parent)


def _cook(recipe: Recipe, models: Path, report: Report) -> None:
    partial = models / f"{recipe.name}.partial"
    finished = _resume(recipe, partial)
    done = sum(finished[part.name].size for part in recipe.parts if part.name in finished)
    _require_disk(models, recipe.size - done)
    partial.mkdir(exist_ok=True)
    _note(recipe, partial, finished)
    for part in recipe.parts:
        if part.name in finished:
            continue
        report(done, recipe.size, f"preparing {recipe.name}")
        content = part.make()
        write_durably(partial / part.name, content)
        finished[part.name] = _File(len(content), hashlib.sha256(content).hexdigest())
        _note(recipe, partial, finished)
        done += len(content)
    report(done, recipe.size, f"preparing {recipe.name}: tokenizer")
    recipe.finish(partial)
    _seal(recipe, partial, finished)
    partial.rename(models / recipe.name)
    _sync_folder(models)
    report(recipe.size, recipe.size, f"{recipe.name} is ready")


def _resume(recipe: Recipe, partial: Path) -> dict[str, _File]:
    """Return the finished parts whose bytes are as recorded; anything else in `partial` is removed."""
    notes = _read_json(partial / _FINISHED) or {}
    if (notes.get("version"), notes.get("source")) != (recipe.version, recipe.source):
        notes = {}
    recorded = _files(notes.get("files"))
    names = {part.name for part in recipe.parts}
    whole = {n: f for n, f in recorded.items() if n in names and _is_whole(partial / n, f)}
    if partial.is_dir():
        for path in partial.iterdir():
            if path.name not in whole and path.is_file():
                path.unlink()
    return whole


def _is_whole(path: Path, expected: _File) -> bool:
    return path.is_file() and path.stat().st_size == expected.size and _hash(path) == expected.sha256


def _note(recipe: Recipe, partial: Path, files: dict[str, _File]) -> None:
    write_durably(partial / _FINISHED, _manifest(recipe, files))


def _seal(recipe: Recipe, partial: Path, parts: dict[str, _File]) -> None:
    """Replace finished.json by the manifest over every file of the folder."""
    (partial / _FINISHED).unlink()
    files = dict(parts)
    for path in sorted(partial.iterdir()):
        if path.name not in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.name] = _File(path.stat().st_size, _hash(path))
    write_durably(partial / MANIFEST, _manifest(recipe, files))


def _manifest(recipe: Recipe, files: dict[str, _File]) -> bytes:
    content = {
        "name": recipe.name,
        "version": recipe.version,
        "source": recipe.source,
        "files": {name: asdict(file) for name, file in sorted(files.items())},
    }
    return json.dumps(content, indent=1).encode()


def _files(value: object) -> dict[str, _File]:
    """Read the `files` of a manifest; malformed ones are empty."""
    if not isinstance(value, dict):
        return {}
    try:
        return {str(name): _File(int(f["size"]), str(f["sha256"])) for name, f in value.items()}
    except (KeyError, TypeError, ValueError):
        return {}


def _read_json(path: Path) -> dict[str, object] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_disk(models: Path, needed: int) -> None:
    free = shutil.disk_usage(models).free
    if free < needed + _MARGIN:
        raise ModelUnusable(
            f"{models} has {free // 2**20} MB free, preparing the model needs "
            f"{(needed + _MARGIN) // 2**20} MB: "
            "free some disk space or choose another data folder"
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file; the system releases it when the process dies."""
    with path.open("w") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ModelUnusable(f"another process holds {path}; stop it and try again") from None
                report(0, 0, "another process is preparing the model; waiting")
                time.sleep(0.5)
        yield
