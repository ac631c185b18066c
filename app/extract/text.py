"""Plain text: Unicode, or an older encoding, which is detected."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Iterator
from typing import BinaryIO

from chardet import detect_all

from app.extract import TEXT_LIMIT

# Encodings in which editors saved plain text before Unicode.
OLD_ENCODINGS = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *(
        "iso8859-1",
        "iso8859-2",
        "iso8859-5",
        "iso8859-7",
        "iso8859-9",
        "iso8859-15",
        "koi8-r",
        "koi8-u",
        "cp866",
    ),
    *("cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949"),
]
CERTAINTY = 0.8  # part of the best encoding's confidence from which another is about as likely
_CONTROLS = re.compile(r"[\x80-\x9f]")


def read(file: BinaryIO) -> Iterator[str]:
    """Yield a text file's beginning: UTF-8, UTF-16 with its mark, or an older encoding, which is detected."""
    data = file.read(4 * TEXT_LIMIT)
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        yield data.decode("utf-16", "replace")
        return
    try:
        # The limit may have split the last character, which this decoder leaves out.
        yield getincrementaldecoder("utf-8-sig")().decode(data, final=len(data) < 4 * TEXT_LIMIT)
    except UnicodeDecodeError:
        yield _decoded(data)


def _decoded(data: bytes) -> str:
    """Decode text whose encoding is not known; an uncertain character becomes U+FFFD, never another one.

    A few letters fit many encodings: those about as likely as the best have to agree on a character.
    """
    found = detect_all(
        data, include_encodings=OLD_ENCODINGS, no_match_encoding="ascii", ignore_threshold=True
    )
    decoded = [(one["confidence"], data.decode(one["encoding"] or "ascii", "replace")) for one in found]
    decoded = [(confidence, text) for confidence, text in decoded if not _CONTROLS.search(text)]
    likely = [text for confidence, text in decoded if confidence >= decoded[0][0] * CERTAINTY]
    if len({len(text) for text in likely}) != 1:
        return data.decode("ascii", "replace")
    return "".join(each[0] if len(set(each)) == 1 else "\ufffd" for each in zip(*likely, strict=True))
