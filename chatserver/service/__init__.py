"""What the server does: commands of the web role, turns of the engine role, supervision."""
