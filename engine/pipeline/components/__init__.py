"""What a job runs: one component a file, found by its name."""
