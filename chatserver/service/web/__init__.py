"""The web role: commands of clients, reading tapes, the limits of keys."""
