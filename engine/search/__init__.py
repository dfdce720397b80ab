"""Who asks: one strategy a file."""
