"""Decisions between settings: seeds until it is decided which is better, at a stated error rate."""
