"""What results mean: effects, rankings, recipes. Runs nothing."""
