"""Task `t2v`: text-to-video diffusion."""
