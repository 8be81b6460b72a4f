"""Errors that the command line reports without a traceback."""


class UserError(ValueError):
    """Raised for a mistake in a config, a file or a command: the command line prints the message and exits with 1.

    The message says what is wrong, where, what was expected, and what to do.
    """


class RunFailed(Exception):
    """Raised when a worker did not complete, after it has reported the reason.

    Attributes:
        exit_code: Exit code of the worker.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the worker ended with exit code {exit_code}")
        self.exit_code = exit_code
