"""DeepSeek-V2, V3 and V3.2."""

from sglang.srt.models.deepseek_v2 import EntryClass

__all__ = ["EntryClass"]
