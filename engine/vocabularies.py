"""What a Hugging Face folder says of its tokens: tokenizer.json as the library reads it, end ids, chat template."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from engine.contract import ModelUnusable
from engine.decoding import ByteTable
from engine.models.folder import read_json
from engine.template import ChatTemplate


def load(vocabulary: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Return the library's tokenizer, which never cuts or pads. Raises ModelUnusable."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(vocabulary))
    except Exception as error:  # the library raises bare Exception
        raise ModelUnusable(f"tokenizer.json cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def specials(vocabulary: Mapping[str, Any], template: ChatTemplate) -> dict[int, str]:
    """Return the tokens that text must not turn into: special ones, and added ones that the template uses.

    DeepSeek's role tokens, for one, are added tokens that are not marked as special.
    """
    used = "\n".join(template.texts)
    return {
        entry["id"]: entry["content"]
        for entry in vocabulary["added_tokens"]
        if entry["special"] or (entry["content"].strip() and entry["content"] in used)
    }


def visible(added: Mapping[int, str]) -> list[str]:
    """Return the strings that text may spell by chance or on purpose, the longest first."""
    return sorted((content for content in added.values() if content.strip()), key=len, reverse=True)


def without(vocabulary: Mapping[str, Any], specials: Mapping[int, str]) -> dict[str, Any]:
    """Return a vocabulary in which nobody can spell a special token.

    Those behind the model's own vocabulary are renamed, not removed: the library numbers what it finds there anew.
    """
    known, secret = vocabulary["model"]["vocab"], secrets.token_hex(16)
    names = set(known) if isinstance(known, dict) else {name for name, *_ in known}
    kept = [
        {**entry, "content": f"{secret}{entry['id']}"} if entry["id"] in specials else entry
        for entry in vocabulary["added_tokens"]
        if entry["id"] not in specials or entry["content"] not in names
    ]
    return {**vocabulary, "added_tokens": kept, "post_processor": None}


def check_ids(tokenizer: tokenizers.Tokenizer, added: Mapping[int, str], guarded: Mapping[int, str]) -> None:
    """Raise ModelUnusable if the library numbers added tokens otherwise than the file does."""
    for number, content in added.items():
        if number not in guarded and tokenizer.token_to_id(content) != number:
            raise ModelUnusable(
                f"tokenizer.json: expected the added token {content!r} to have the id {number}, "
                f"it gets {tokenizer.token_to_id(content)}: its ids have gaps"
            )


def byte_table(
    vocabulary: Mapping[str, Any],
    tokenizer: tokenizers.Tokenizer,
    added: Mapping[int, str],
    specials: frozenset[int],
) -> ByteTable | None:
    """Return the bytes of every token, None for a vocabulary that is not byte-level. `specials`: those without text."""
    decoder = vocabulary.get("decoder") or {}
    kinds = [step.get("type") for step in decoder.get("decoders", [decoder])]
    return ByteTable(tokenizer.id_to_token, added, specials) if kinds == ["ByteLevel"] else None


def template_source(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the chat template. `config`: of tokenizer_config.json. Raises ModelUnusable if there is none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):  # named templates
        source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
    if not isinstance(source, str):
        raise ModelUnusable(
            "no chat template: expected chat_template.jinja or chat_template in tokenizer_config.json"
        )
    return source


def find_end_ids(folder: Path, vocabulary: Mapping[str, Any], constants: Mapping[str, str]) -> frozenset[int]:
    """Return every id that the folder's files call an end."""
    ends: set[int] = {
        e["id"] for e in vocabulary["added_tokens"] if e["content"] == constants.get("eos_token")
    }
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        value = read_json(path).get("eos_token_id") if path.is_file() else None
        ends.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    return frozenset(ends)


def content(value: Any) -> Any:
    """Return the text of a token that is written as an object, everything else as it is."""
    return value.get("content") if isinstance(value, dict) else value


def hash_of(vocabulary: Mapping[str, Any], template: str, constants: Mapping[str, str]) -> str:
    """Return what identifies vocabulary and template."""
    content = json.dumps([vocabulary, template, dict(sorted(constants.items()))], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
