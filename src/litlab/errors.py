"""The errors that are meant for the person at the keyboard."""


class UserError(ValueError):
    """What a user can get wrong: the command line prints the message, without a traceback, and exits 1.

    The message says what was wrong, where, what was expected and what to do.
    """


class RunFailed(Exception):
    """A worker did not complete; it has said why already."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the worker ended with exit code {exit_code}")
        self.exit_code = exit_code
