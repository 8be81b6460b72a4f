"""Run the command line as `python -m litlab`."""

from litlab.cli.main import main

main()
