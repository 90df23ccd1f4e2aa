"""What others have published and this program calculates with: models' dimensions, GPUs, measured rates."""
