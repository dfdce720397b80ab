"""One tracker a file, each by its own client."""
