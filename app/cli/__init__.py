"""The command line: which commands there are, their options and what they print."""
