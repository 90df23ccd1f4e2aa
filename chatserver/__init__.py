"""A streaming chat server that owns the conversation and the KV cache."""
