"""Text from files made safe to show."""

from rmjax.errors import harmless

MAX_SHOWN = 200  # characters


def printable(text: str) -> str:
    """Shorten a text to `MAX_SHOWN` characters that cannot command a terminal.

    White space becomes single spaces; the rest is as in `rmjax.errors.harmless`.
    """
    text = " ".join(text[: 4 * MAX_SHOWN].split())
    if len(text) > MAX_SHOWN:
        text = text[: MAX_SHOWN - 1] + "…"
    return harmless(text)
