"""Small protocols between the services and what they need from outside."""
