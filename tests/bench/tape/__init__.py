"""What the durable tape costs: the store, and the engine's side of its commits."""
