"""What a person touches: command line, report. Knows agent and engine."""
