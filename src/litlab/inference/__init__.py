"""Prediction, evaluation and export of a finished run."""
