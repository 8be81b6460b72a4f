"""`python -m litlab` is `litlab`."""

from litlab.cli import main

main()
