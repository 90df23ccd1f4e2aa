"""What operators ask of the program: a doctor, a plan, keys, usage, replays, random models."""
