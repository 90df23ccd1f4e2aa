"""The server's own share of the time to the first token, and what it keeps in memory."""
