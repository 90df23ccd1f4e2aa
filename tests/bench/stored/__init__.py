"""Many stored answers: what they cost in the store, and nowhere else."""
