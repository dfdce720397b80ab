"""The report: one HTML page of a study that needs nothing else."""
