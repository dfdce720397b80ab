"""What trackers of experiments are told: MLflow, W&B, trackio, TensorBoard."""
