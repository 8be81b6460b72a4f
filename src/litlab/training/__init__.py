"""Training of a run in its worker process."""
