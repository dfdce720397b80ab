"""Results that others have recorded, as values of a pool at a seed: CSV, MLflow's runs, W&B's runs."""
