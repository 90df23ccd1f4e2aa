"""Many connections: what an idle and a stalled one costs, and what crowds and storms do to the others."""
