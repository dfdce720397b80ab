"""What runs trials on devices. Knows nothing of rankings."""
