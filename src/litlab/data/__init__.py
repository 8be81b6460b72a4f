"""Image data modules: images are decoded once, kept as uint8, then gathered, augmented and normalized in batches.

Nothing here depends on Hydra, networks or run directories (their locks aside). Of the Trainer, only rank, epoch and
device are used.
"""
