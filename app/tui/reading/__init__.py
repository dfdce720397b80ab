"""What the UI reads of a study, in a process of its own."""
