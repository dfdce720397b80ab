"""Search strategies, one per file: each proposes the next trials from the evidence."""
