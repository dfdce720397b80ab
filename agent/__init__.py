"""The optional language model: it may only propose. Knows engine."""
