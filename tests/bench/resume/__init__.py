"""What coming back costs."""
