"""Lightning's training loop with less around each step."""
