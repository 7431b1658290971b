"""What a label is, and how predictions are scored."""
