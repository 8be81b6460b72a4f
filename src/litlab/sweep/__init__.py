"""Studies of many runs: grids and searches on a backend. No torch, no Hydra."""
