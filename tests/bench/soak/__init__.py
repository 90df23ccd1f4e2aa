"""The whole program under load for long, its readers cut again and again."""
