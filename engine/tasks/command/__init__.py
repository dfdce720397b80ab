"""Task `command`: a program of the user's own trains."""
