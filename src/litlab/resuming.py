"""Exact resumption: what the weights, the optimizer and Lightning's counters leave out."""
