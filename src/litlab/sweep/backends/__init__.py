"""The jobs of a study on the devices of this machine."""
