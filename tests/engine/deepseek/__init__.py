"""DeepSeek-V3 through the real engine, against transformers."""
