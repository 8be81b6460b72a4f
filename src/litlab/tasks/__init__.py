"""Tasks: LightningModules around a network, with their loss, metrics and optimizer."""
