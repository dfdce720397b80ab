"""`study.yaml`: its fields and their ranges, and nothing that runs."""
