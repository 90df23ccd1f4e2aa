"""The engine: SGLang embedded, its portable CPU platform, model preparation, and a scripted twin."""
