"""The extractor: opens uploaded files, with nothing else in reach, and returns their text.

`python -m app.extract` is a server on a Unix socket. A worker hands it the open file of one CV, and it reads
each in a process of its own (see `confined`): a crafted file can take hours and gigabytes, crash a parser or
take it over.
"""

import re
from pathlib import Path
from urllib.parse import unquote

TEXT_LIMIT = 200_000  # characters; a hundred pages of CV
KINDS = ("docx", "pdf", "text")
SOCKET = Path("/run/screen-flow-extractor/extractor.sock")
READING = b"+"  # first byte of an answer, sent once a process reads the file
REFUSED = 3  # exit status of that process
TIMEOUT = 60  # seconds until it is killed; longer than its limit of processor time, for a busy machine
TOO_MUCH = "Reading the file takes too much time or memory. Export it again in a simpler form."
# Between texts that do not follow each other on the page, such as the body and the page footer.
BREAK = "\f"

_MAIL_LINK = re.compile(r"mailto:([^\s?\"]+)", re.IGNORECASE)


class Refused(Exception):
    """The file is at fault; the message tells the user what to do.

    `seconds` of processor time were spent on it.
    """

    def __init__(self, message: str, seconds: float = 0) -> None:
        super().__init__(message)
        self.seconds = seconds


class Unavailable(Exception):
    """The extractor does not answer: the CV has to wait."""


def mail_address(link: str) -> str | None:
    """Return the address of a mailto link."""
    match = _MAIL_LINK.match(link)
    return unquote(match[1]) if match else None
