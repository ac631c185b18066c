"""Text of one CV, in a process of its own with little time and memory.

Called as `python extract.py KIND PATH`. Prints the text; when the file is at fault it prints a sentence and
ends with status 3. A file can be made to take hours and gigabytes, or to crash a parser: here it takes only
itself along, and the caller sees that by the exit status.
"""

import io
import resource
import sys
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from pathlib import Path

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
TEXT_LIMIT = 200_000  # characters; a hundred pages of CV
PAGES_LIMIT = 100
OLD_PROGRAMS = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
XML_LIMIT = 20 << 20  # bytes that a DOCX's text may unpack to; images are never unpacked
PARTS_LIMIT = 2_000
REFUSED = 3  # exit status
TOO_MUCH = "Reading the file takes too much time or memory. Export it again in a simpler form."


class Refused(Exception):
    """The file is at fault; the text tells a person what to do."""


def pdf(path: Path) -> Iterator[str]:
    """Yield a PDF's pages. Raises Refused."""
    from pypdf import PdfReader
    from pypdf.errors import LimitReachedError

    try:
        reader = PdfReader(path)
        # Many PDFs are locked against printing only, and open with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("The PDF is protected by a password. Upload it without one.")
        if len(reader.pages) > PAGES_LIMIT:
            raise Refused(f"The PDF has more than {PAGES_LIMIT} pages. Upload the CV alone.")
        for page in reader.pages:
            yield page.extract_text()
    except (Refused, MemoryError):
        raise
    except LimitReachedError as error:
        raise Refused(TOO_MUCH) from error
    # pypdf meets broken files with errors of all kinds, not only its own.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise Refused(
            "The PDF is damaged and can't be read. Export it again and upload the new file."
        ) from error


def docx(path: Path) -> Iterator[str]:
    """Yield a Word document's paragraphs, also of page headers, tables and text boxes. Raises Refused."""
    from docx import Document
    from docx.oxml.ns import qn
    from docx.text.paragraph import Paragraph

    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            xml = sum(part.file_size for part in parts if not part.filename.startswith("word/media/"))
            if len(parts) > PARTS_LIMIT or xml > XML_LIMIT:
                raise Refused(TOO_MUCH)
        document = Document(str(path))
        headers = [section.header for section in document.sections]
        roots = [header._element for header in headers if not header.is_linked_to_previous]
        for root in [*roots, document.element.body]:
            for paragraph in root.iter(qn("w:p")):
                # A text box is there twice: once for programs too old to know it.
                if next(paragraph.iterancestors(OLD_PROGRAMS), None) is None:
                    yield Paragraph(paragraph, document).text
    except (Refused, MemoryError):
        raise
    # zipfile, lxml and python-docx meet broken files with errors of all kinds.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise Refused(
            "The DOCX is damaged and can't be read. Save it again and upload the new file."
        ) from error


def text(path: Path) -> Iterator[str]:
    """Yield a text file's beginning, in the encodings that uploads accept."""
    with path.open("rb") as file:
        data = file.read(4 * TEXT_LIMIT)
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        yield data.decode("utf-16", "replace")
        return
    try:
        # The cut may have split the last character.
        yield data.decode("utf-8-sig", "strict" if len(data) < 4 * TEXT_LIMIT else "ignore")
    except UnicodeDecodeError:
        yield data.decode("cp1252", "replace")


KINDS: dict[str, Callable[[Path], Iterator[str]]] = {"pdf": pdf, "docx": docx, "text": text}


def extract(kind: str, path: Path) -> str:
    """Return the text of a CV, at most TEXT_LIMIT characters. Raises Refused."""
    found = io.StringIO()
    for piece in KINDS[kind](path):
        found.write(piece[: TEXT_LIMIT - found.tell()] + "\n")
        if found.tell() >= TEXT_LIMIT:
            break
    if not found.getvalue().strip():
        raise Refused(
            "The file holds no text; it may be a scan. Upload a version whose text can be selected."
        )
    return found.getvalue()


def main() -> None:
    """Print the text of a CV."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, path = sys.argv[1:]
    try:
        answer = extract(kind, Path(path))
    except Refused as refused:
        answer = str(refused)
    except MemoryError:
        answer = TOO_MUCH
    else:
        sys.stdout.buffer.write(answer.encode("utf-8", "replace"))
        return
    sys.stdout.buffer.write(answer.encode())
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
