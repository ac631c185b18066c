"""PDF: pages, and what annotations add to them."""

import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pypdf import PdfReader
from pypdf.errors import LimitReachedError

from app.extract import BREAK, TOO_MUCH, Refused, mail_address

PAGES_LIMIT = 100


def read(path: Path) -> Iterator[str]:
    """Yield the text of each page of a PDF, then that of its form fields and links. Raises Refused."""
    try:
        reader = PdfReader(path)
        # Many PDFs are locked against printing only, and open with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("The PDF is protected by a password. Upload it without one.")
        if len(reader.pages) > PAGES_LIMIT:
            raise Refused(f"The PDF has more than {PAGES_LIMIT} pages. Upload the CV alone.")
        for page in reader.pages:
            text = _composed(page.extract_text())
            yield text
            yield from _annotations(page, text)
    except (Refused, MemoryError):
        raise
    except LimitReachedError as error:
        raise Refused(TOO_MUCH) from error
    # pypdf raises errors of all kinds for broken files, not only its own.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise Refused(
            "The PDF is damaged and can't be read. Export it again and upload the new file."
        ) from error


# Acute, grave, diaeresis, circumflex, tilde, caron and ring, and their combining forms.
_ACCENTS = dict(
    zip("\xb4`\xa8\u02c6\u02dc\u02c7\u02da", "\u0301\u0300\u0308\u0302\u0303\u030c\u030a", strict=True)
)


def _composed(text: str) -> str:
    """Join an accent that a font draws apart from its letter, as TeX does without an encoded font."""

    def compose(match: re.Match[str]) -> str:
        letter = {"\u0131": "i", "\u0237": "j"}.get(match[2], match[2])  # without their dots
        joined = unicodedata.normalize("NFC", letter + _ACCENTS[match[1]])
        return joined if len(joined) == 1 else match[0]

    return re.sub(rf"([{''.join(_ACCENTS)}]) ?([^\W\d_])", compose, text)


def _annotations(page: Any, text: str) -> Iterator[str]:
    """Yield what annotations add to a page's text: form fields, text boxes, addresses of links."""
    for reference in page.get("/Annots") or []:
        annotation = reference.get_object()
        if not isinstance(annotation, dict) or annotation.get("/F", 0) & 2:  # hidden
            continue
        kind = annotation.get("/Subtype")
        value: object = None
        if kind == "/Widget":
            field = annotation if "/FT" in annotation else annotation.get("/Parent", annotation).get_object()
            if field.get("/FT") == "/Tx":
                value = field.get("/V")
        elif kind == "/FreeText":
            value = annotation.get("/Contents")
        elif kind == "/Link":
            action = annotation.get("/A", {}).get_object()
            value = mail_address(str(action.get("/URI", "")))
        if isinstance(value, str) and value.strip() and value not in text:
            yield BREAK + value
