"""Recordings of the UI: written, read, and checked before anything is shown."""
