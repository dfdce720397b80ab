"""Task `lm`: a causal language model on text."""
