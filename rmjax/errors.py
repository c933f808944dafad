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


class Preempted(RuntimeError):
    """Training was asked to stop and did, after saving: it can be taken up again.

    The command line prints it alone and exits with status 75, `EX_TEMPFAIL` of
    sysexits.h, by which schedulers know what to start again.
    """


def harmless(text: str) -> str:
    """Return a text with U+FFFD for all that `str.isprintable` rejects.

    Control characters, line breaks, escapes, bidirectional marks and surrogates: what
    files and their names hold may neither command a terminal nor begin a line there.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
