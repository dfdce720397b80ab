"""The kinds of experiment, one a file."""
