"""From a file to what a CV says: text by a maintained library, then name, email, phone and skills."""

import re
import zipfile
from functools import cache
from pathlib import Path
from typing import TypedDict

import docx
import phonenumbers
import pypdf
from docx.opc.exceptions import PackageNotFoundError

MAX_PAGES = 50  # of a PDF; a CV says who it is on the first
MAX_TEXT = 500_000  # characters that are looked at
MAX_UNPACKED = 64 * 2**20  # bytes that a Word file may unpack to: a zip bomb unpacks to far more
EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
NAME = re.compile(r"[^\W\d_][\w'’.-]*(?: [^\W\d_][\w'’.-]*){1,4}")
HEADING = re.compile(r"curriculum vitae|resume|résumé|profile|contact|\bcv\b", re.IGNORECASE)


class Unreadable(Exception):
    """The file can't be read as a CV; the text is for the person who sent it."""


class Result(TypedDict):
    """What was found; None or empty where the CV does not say."""

    name: str | None
    email: str | None
    phone: str | None
    skills: list[str]


def text_of(path: Path, kind: str) -> str:
    """Return the text of a 'pdf', 'docx' or 'text' file, at most MAX_TEXT characters. Raises Unreadable."""
    try:
        text = {"pdf": _pdf, "docx": _docx, "text": _plain}[kind](path)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("The file is no longer there; upload it again.") from None
    except RecursionError:
        raise Unreadable("The file is nested too deeply to be a CV.") from None
    # Parsers of foreign formats raise what their authors did not think of; each is a broken file.
    except Exception as error:
        raise Unreadable(f"The file is damaged ({type(error).__name__}); export it again.") from error
    if not text.strip():
        raise Unreadable("There is no text in the file; a scan has to be made searchable first.")
    return text[:MAX_TEXT]


def _pdf(path: Path) -> str:
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("The PDF is protected by a password; save it without one.")
    parts: list[str] = []
    for index in range(min(len(reader.pages), MAX_PAGES)):
        parts.append(reader.pages[index].extract_text())
        if sum(map(len, parts)) > MAX_TEXT:
            break
    return "\n".join(parts)


def _docx(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
            raise Unreadable(f"The Word file unpacks to more than {MAX_UNPACKED // 2**20} MB.")
    try:
        document = docx.Document(str(path))
    except PackageNotFoundError as error:
        raise Unreadable("The Word file is damaged; save it again.") from error
    lines = [paragraph.text for paragraph in document.paragraphs]
    lines += [cell.text for table in document.tables for row in table.rows for cell in row.cells]
    return "\n".join(lines)


def _plain(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4 * MAX_TEXT).decode("utf-8", "replace")


def facts_of(text: str, phone_region: str) -> Result:
    """Return what the text says; `phone_region` is the country of numbers without a +prefix, as in 'US'."""
    email = EMAIL.search(text)
    phone = next(iter(phonenumbers.PhoneNumberMatcher(text, phone_region)), None)
    return {
        "name": _name(text),
        "email": email.group() if email else None,
        "phone": phonenumbers.format_number(phone.number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        if phone
        else None,
        "skills": [skill for skill, pattern in _skills() if pattern.search(text)],
    }


def _name(text: str) -> str | None:
    """Return the first of the top lines that looks like a person's name."""
    for line in [line.strip() for line in text.splitlines() if line.strip()][:10]:
        line = re.sub(r"^name:\s*", "", line, flags=re.IGNORECASE)
        if NAME.fullmatch(line) and not HEADING.search(line):
            return line
    return None


@cache
def _skills() -> list[tuple[str, re.Pattern[str]]]:
    words = (Path(__file__).parent / "skills.txt").read_text(encoding="utf-8").splitlines()
    # Not \b: it has no boundary after the + of C++.
    return [
        (word, re.compile(rf"(?<![\w+#]){re.escape(word)}(?![\w+#])", re.IGNORECASE))
        for word in words
        if word
    ]
