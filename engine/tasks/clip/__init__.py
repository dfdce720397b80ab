"""Task `clip`: image–text contrastive pre-training."""
