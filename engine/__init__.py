"""What runs, without any model or UI. Knows nobody above it."""
