"""From the command line to a frozen config: compose, validate, freeze. Nothing here imports torch."""
