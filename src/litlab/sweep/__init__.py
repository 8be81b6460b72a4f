"""Studies: many runs of one command, on the devices that there are. Nothing here imports torch or Hydra."""
