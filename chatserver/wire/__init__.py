"""The public API to the field: bytes in, domain values out, and back."""
