"""`chatserver chat`: a chat in the terminal, on the Python client alone."""
