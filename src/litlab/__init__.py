"""litlab: a PyTorch Lightning research experiment framework."""
