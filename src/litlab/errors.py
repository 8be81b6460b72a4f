"""Errors that the command line reports without a traceback."""


class UserError(ValueError):
    """Raised for a mistake in a config, a file or a command: the command line prints the message and exits.

    The message says what is wrong, where, what was expected, and what to do.

    Attributes:
        exit_code: Exit code of the command.
    """

    exit_code = 1


class InUseError(UserError):
    """Raised if another process holds a run or a study: the same command succeeds later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: a script may go back to the queue


class RunFailed(Exception):
    """Raised when a worker did not complete, after it has reported the reason.

    Args:
        exit_code: Exit code of the worker.
        message: The reason, where it is known.

    Attributes:
        exit_code: Exit code of the worker.
    """

    def __init__(self, exit_code: int, message: str = "") -> None:
        super().__init__(message or f"the worker ended with exit code {exit_code}")
        self.exit_code = exit_code
