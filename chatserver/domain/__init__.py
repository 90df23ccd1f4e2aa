"""Pure rules: items, tapes, plans. Standard library only; no clock, no randomness, no asyncio."""
