"""The run directory: what leaves a run, as files. Nothing here imports torch."""
