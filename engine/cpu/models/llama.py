"""Llama and what shares its class."""

from sglang.srt.models.llama import EntryClass

__all__ = ["EntryClass"]
