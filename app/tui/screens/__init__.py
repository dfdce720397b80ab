"""One screen a file; each is a mode of the app with a key of its own."""
