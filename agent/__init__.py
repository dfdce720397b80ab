"""The optional language model: it may look, answer and propose, and can decide nothing. Knows engine."""
