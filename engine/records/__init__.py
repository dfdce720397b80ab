"""The words of the README as frozen values."""
