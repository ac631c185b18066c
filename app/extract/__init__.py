"""Extract the text of one CV, in a separate process with bounded time and memory.

Run as `python DIRECTORY KIND PATH`, with the directory of this package. Prints the text and exits with 0, or
prints a message for the user and exits with REFUSED when the file is at fault. A crafted file can take hours
and gigabytes, or crash a parser: that ends this process only, and the caller sees it from the exit status.
"""

import re
from urllib.parse import unquote

TEXT_LIMIT = 200_000  # characters; a hundred pages of CV
REFUSED = 3  # exit status
TOO_MUCH = "Reading the file takes too much time or memory. Export it again in a simpler form."
# Between texts that do not follow each other on the page, such as the body and the page footer.
BREAK = "\f"

_MAIL_LINK = re.compile(r"mailto:([^\s?\"]+)", re.IGNORECASE)


class Refused(Exception):
    """The file is at fault; the message tells the user what to do. `seconds` is the processor time spent."""

    def __init__(self, message: str, seconds: float = 0) -> None:
        super().__init__(message)
        self.seconds = seconds


def mail_address(link: str) -> str | None:
    """Return the address of a mailto link."""
    match = _MAIL_LINK.match(link)
    return unquote(match[1]) if match else None
