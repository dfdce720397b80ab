"""Task `vlm`: a vision-language model in two stages."""
