"""The exceptions that end a command with one line instead of a traceback."""


class InputError(ValueError):
    """A file, key or number that the user gave is at fault.

    The message is one line: what is wrong, where, and what would be right. The
    command line prints it alone and exits with status 2.
    """


class TrainingError(RuntimeError):
    """Training can't go on; the message says at which step and what is kept.

    The command line prints it alone and exits with status 3.
    """
