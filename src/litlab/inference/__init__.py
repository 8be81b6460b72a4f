"""What is done with a finished run, from its directory alone: predict, evaluate, export."""
