"""What several tasks use: batches, images, videos, the training loop."""
