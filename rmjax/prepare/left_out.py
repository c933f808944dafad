"""The images of a data set that cannot be used: counted, limited and listed."""

from pathlib import Path

from rmjax.errors import InputError

MAX_BAD = 0.01  # share of images left out above which a data set is refused
LEFT_OUT = "left_out.txt"


def printable(text: str) -> str:
    """Return a text in one line of UTF-8, with escapes for what does not fit in there."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def read_left_out(folder: Path) -> list[str]:
    """Return the lines that `LeftOut.save` wrote: path, tab, reason."""
    file = folder / LEFT_OUT
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


class LeftOut:
    """The images that cannot be used, by path, with the reasons.

    Args:
        total: how many images there are; `MAX_BAD` of them may be left out.
        what: they are.
    """

    def __init__(self, total: int, what: str = "images"):
        self.total, self.what = total, what
        self.reasons: dict[str, str] = {}
        self.count = 0  # lists may name two images alike

    def add(self, path: str, reason: str) -> None:
        """Add one.

        Raises:
            InputError: so many are too many, however the rest may be.
        """
        self.reasons[printable(path)] = printable(reason)
        self.count += 1
        # A few more than the limit, to have examples of what is wrong.
        if len(self.reasons) > MAX_BAD * self.total + 3:
            self.check()

    def check(self) -> None:
        """Raise an InputError if there are too many."""
        if len(self.reasons) <= MAX_BAD * self.total:
            return
        examples = [
            f"{path}: {reason}" for path, reason in sorted(self.reasons.items())
        ]
        more = " ..." if len(examples) > 3 else ""
        raise InputError(
            f"{len(examples)} of {self.total} {self.what} cannot be used, more than "
            f"{MAX_BAD:.0%}: repair or remove them ({'; '.join(examples[:3])}{more})"
        )

    def save(self, folder: Path) -> None:
        """List them in a file, if there are any."""
        if self.reasons:
            lines = [f"{path}\t{why}\n" for path, why in sorted(self.reasons.items())]
            (folder / LEFT_OUT).write_text("".join(lines), encoding="utf-8")
