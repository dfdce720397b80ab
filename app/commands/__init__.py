"""The commands of `djsb`, one a file."""
