"""What the front door costs: the key, the limits, the validation of a request."""
