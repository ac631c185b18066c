"""PDF: pages, and what annotations add to them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from pypdf import PdfReader
from pypdf.errors import LimitReachedError

from app.extract import BREAK, TOO_MUCH, Refused, mail_address

PAGES_LIMIT = 100
UPPER_PART = 0.65  # of a page's height, above which contact details are expected
FOOTER_PART = 0.2  # of a page's height, below which a gap sets a footer apart
LINE_HEIGHT = 20  # points
SPACING = 2  # pypdf's own 1.25 runs words together that are placed one by one
DISORDER = 0.3  # part of the steps between texts that go up, or break a line, when the order makes no sense


def read(file: BinaryIO) -> Iterator[str]:
    """Yield the text of each page of a PDF, then that of its form fields and links. Raises Refused."""
    try:
        reader = PdfReader(file)
        # Many PDFs are encrypted only to restrict printing, and open with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("The PDF is protected by a password. Upload a version without one.")
        if len(reader.pages) > PAGES_LIMIT:
            raise Refused(f"The PDF has more than {PAGES_LIMIT} pages. Upload only the CV.")
        for number, page in enumerate(reader.pages):
            text = _composed(_page_text(page, number == 0).translate(_LIGATURES))
            yield text
            yield from _annotations(page, text)
    except (Refused, MemoryError):
        raise
    except LimitReachedError as error:
        raise Refused(TOO_MUCH) from error
    # pypdf raises errors of all kinds for broken files, not only its own.
    except Exception as error:
        raise Refused(
            "The PDF is damaged and can't be read. Export it again and upload the new file."
        ) from error


# Ligatures that TeX's fonts have in place of control characters, and a space that is stored as a tab.
_LIGATURES = str.maketrans(
    {"\x1b": "ff", "\x1c": "fi", "\x1d": "fl", "\x1e": "ffi", "\x1f": "ffl", "\t": " "}
)
# Acute, grave, diaeresis, circumflex, tilde, caron and ring, and their combining forms.
_ACCENTS = dict(
    zip("\xb4`\xa8\u02c6\u02dc\u02c7\u02da", "\u0301\u0300\u0308\u0302\u0303\u030c\u030a", strict=True)
)


def _page_text(page: Any, first: bool) -> str:
    """Return a page's text in the order in which it is drawn, which mostly is that of reading.

    A break separates text that does not follow: a footer, and on page one text drawn late but high up.
    Where the order of drawing makes no sense, the places of the words decide.
    """
    bottom, top = float(page.mediabox.bottom), float(page.mediabox.top)
    flows: list[tuple[float, list[str]]] = [(top, [])]
    previous: float | None = None
    steps = disorder = 0
    broken = False

    def visit(text: str, cm: list[float], tm: list[float], _font: object, size: float) -> None:
        nonlocal previous, steps, disorder, broken
        if text.strip():
            y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
            height = max(1.0, size * abs(tm[3] * cm[3]) or size)
            if previous is None:
                flows[0] = (y, flows[0][1])
            else:
                steps += 1
                rise = y - previous
                disorder += rise > height / 2 or (abs(rise) < 1 and broken)
                to_top = first and rise > 1.5 * height and y > bottom + UPPER_PART * (top - bottom)
                to_footer = rise < -2.5 * height and y < bottom + FOOTER_PART * (top - bottom)
                if to_top or to_footer:
                    flows.append((y, []))
            previous = y
        broken = text.endswith("\n") if text else broken
        flows[-1][1].append(text)

    plain = page.extract_text(visitor_text=visit)
    if steps and disorder > DISORDER * steps:
        return _columns(
            page.extract_text(
                extraction_mode="layout", layout_mode_space_vertically=False, layout_mode_scale_weight=SPACING
            )
        )
    if len(flows) == 1:
        return str(plain)
    start = flows[0][0]
    flows.sort(key=lambda flow: flow[0] <= start + LINE_HEIGHT)
    return f"\n{BREAK}\n".join("".join(pieces) for _, pieces in flows)


def _columns(text: str) -> str:
    """Return text that spaces lay out as on the page, its right column after the left one."""
    lines = text.splitlines()
    starts = Counter(match.end() for line in lines for match in re.finditer(r"(?:^|\S) {3,}(?=\S)", line))
    for start, count in starts.most_common():
        if count >= len(lines) / 5 and not any(line[start - 2 : start].strip() for line in lines):
            sides = ([line[:start] for line in lines], [line[start:] for line in lines])
            return f"\n{BREAK}\n".join("\n".join(map(_single_spaced, side)) for side in sides)
    return "\n".join(map(_single_spaced, lines))


def _single_spaced(line: str) -> str:
    return " ".join(line.split())


def _composed(text: str) -> str:
    """Join an accent that a font draws separately from its letter, as TeX does without an encoded font."""

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
