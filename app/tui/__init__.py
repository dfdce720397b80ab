"""The terminal UI: a client of the study's database. Leaving it stops nothing."""
