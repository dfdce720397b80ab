"""Task `caption`: a model describes images."""
