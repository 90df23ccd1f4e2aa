"""Do the parts of a model folder belong together? Told from headers, before minutes are spent on loading.

SGLang notices some of this late and in words of its own (a tensor's size), and some not at all: layers that the
weights lack keep whatever was in memory.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.contract import ModelUnusable

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
_EMBEDDING = "model.embed_tokens.weight"
_NO_TEXT = re.compile(r"(?:ForSequenceClassification|ForTokenClassification|ForMaskedLM|(?<!LMHead)Model)$")
"""Architectures that give vectors or classes."""
_ENTRY = re.compile(r"^EntryClass\s*=\s*(\[[^\]]*\]|\w+)", re.MULTILINE)
_TRANSFORMERS = Path("models") / "auto" / "modeling_auto.py"


def check_architecture(where: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelUnusable unless the installed SGLang serves an architecture of `config`. Imports nothing of it."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelUnusable(f"{where} names no architectures")
    served = served_architectures()
    if served is None or any(name in served for name in names):
        if all(_NO_TEXT.search(name) for name in names):
            raise ModelUnusable(
                f"{where}: {names[0]} does not write text; expected a model such as LlamaForCausalLM"
            )
        return
    if "auto_map" in config or any(name in _through_transformers() for name in names):
        return
    near = get_close_matches(names[0], served, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ModelUnusable(f"{where}: the installed SGLang does not serve the architecture {names[0]}{meant}")


def check_shapes(where: Path, config: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Raise ModelUnusable if the weights cannot be those of `config`. `shapes`: tensor -> shape, of all files."""
    for problem in _mismatches(config, shapes):
        raise ModelUnusable(f"{where}: {problem}; these are not the weights of this configuration")


def check_vocabulary(where: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Raise ModelUnusable if the tokenizer makes ids that the model has no row for."""
    size = config.get("vocab_size")
    highest = max(_ids(tokenizer), default=-1)
    if highest < 0:
        raise ModelUnusable(f"{where} has no vocabulary")
    if isinstance(size, int) and highest >= size:
        raise ModelUnusable(
            f"{where} has ids up to {highest}, the model a vocabulary of {size}: it is another model's"
        )


@functools.cache
def served_architectures() -> frozenset[str] | None:
    """Return what the installed SGLang has classes for, None if it cannot be found. Its files are read as text."""
    folder = _package("sglang")
    found = sorted((folder / "srt" / "models").glob("*.py")) if folder else []
    if not found:
        return None
    entries = (match for path in found for match in _ENTRY.findall(path.read_text(errors="replace")))
    return frozenset(name for entry in entries for name in re.findall(r"\w+", entry))


@functools.cache
def _through_transformers() -> frozenset[str]:
    """Return what transformers has a class for, which SGLang may wrap."""
    folder = _package("transformers")
    path = folder / _TRANSFORMERS if folder else None
    if path is None or not path.is_file():
        return frozenset()
    return frozenset(
        re.findall(r'"(\w+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration))"', path.read_text())
    )


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _mismatches(config: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterator[str]:
    layers = config.get("num_hidden_layers")
    held = {int(match[1]) for match in map(_LAYER.match, shapes) if match}
    if isinstance(layers, int) and held and len(held & set(range(layers))) != layers:
        yield f"num_hidden_layers is {layers}, the weights hold {len(held)}"
    embedding = shapes.get(_EMBEDDING)
    expected = [config.get("vocab_size"), config.get("hidden_size")]
    if embedding is not None and None not in expected and embedding != expected:
        yield f"vocab_size and hidden_size are {expected}, {_EMBEDDING} is {embedding}"


def _ids(tokenizer: Mapping[str, Any]) -> Iterator[int]:
    """Yield the ids of text, of every form of vocabulary that tokenizer.json has.

    Not the added tokens: fine-tuned models have some that they were never made larger for, and never use.
    """
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from (value for value in vocabulary.values() if isinstance(value, int))
    elif isinstance(vocabulary, list):
        yield len(vocabulary) - 1
