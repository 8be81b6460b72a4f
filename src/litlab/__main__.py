"""`python -m litlab` is `litlab`."""

from litlab.cli.main import main

main()
