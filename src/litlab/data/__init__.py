"""Image data: decoded once, held as uint8, gathered, augmented and normalised in batches.

Nothing in here knows Hydra, run directories, networks or (beyond its rank and epoch) the Trainer.
"""
