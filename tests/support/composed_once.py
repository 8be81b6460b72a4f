"""Compose a config in the fork server of the tests: imported by `support.warm`.

The parsers of Hydra learn their grammar, and its plugins are found, at the first config of a process. A fork that
inherits that composes in half of the time.
"""

from support.runs import TINY

from litlab.testing import compose_config as compose_single_run

compose_single_run(*TINY)
