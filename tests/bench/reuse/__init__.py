"""How much of each prompt comes from the KV cache; see `__main__`."""
