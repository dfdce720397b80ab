"""A study, opened or only viewed."""
