"""The engine role: claims jobs, plans prompts, runs turns, keeps the KV cache warm."""
