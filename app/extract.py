"""Extract the text of one CV, in a separate process with little time and memory.

Called as `python extract.py KIND PATH`. Prints the text; when the file can't be used, prints a message for
the user and exits with status 3. A malicious file may take hours and gigabytes, or crash a parser: that ends
only this process, and the caller sees it by the exit status.
"""

import io
import resource
import sys
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
TEXT_LIMIT = 200_000  # characters, about a hundred pages
PAGES_LIMIT = 100
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
XML_LIMIT = 20 << 20  # bytes of a DOCX's unpacked XML; images are never unpacked
PARTS_LIMIT = 2_000
REFUSED = 3  # exit status
TOO_MUCH = "Reading the file takes too much time or memory. Export it again in a simpler form."


class Refused(Exception):
    """The file can't be used; the message tells the user why and what to do."""


@contextmanager
def _refuse_damaged(message: str) -> Iterator[None]:
    """Turn any error of a parser into Refused: damaged files also cause errors that are not its own."""
    try:
        yield
    except (Refused, MemoryError):
        raise
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise Refused(message) from error


def pdf(path: Path) -> Iterator[str]:
    """Yield a PDF's pages. Raises Refused."""
    from pypdf import PdfReader
    from pypdf.errors import LimitReachedError

    with _refuse_damaged("The PDF is damaged and can't be read. Export it again and upload the new file."):
        try:
            reader = PdfReader(path)
            # Many PDFs are encrypted only to restrict printing, and open with an empty password.
            if reader.is_encrypted and not reader.decrypt(""):
                raise Refused("The PDF is protected by a password. Upload a version without one.")
            if len(reader.pages) > PAGES_LIMIT:
                raise Refused(f"The PDF has more than {PAGES_LIMIT} pages. Upload only the CV.")
            for page in reader.pages:
                yield page.extract_text()
        except LimitReachedError as error:
            raise Refused(TOO_MUCH) from error


def docx(path: Path) -> Iterator[str]:
    """Yield a Word document's paragraphs, including headers, tables and text boxes. Raises Refused."""
    from docx import Document
    from docx.oxml.ns import qn
    from docx.text.paragraph import Paragraph

    with _refuse_damaged("The DOCX is damaged and can't be read. Save it again and upload the new file."):
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
                # Text boxes occur twice; the second is for old programs.
                if next(paragraph.iterancestors(FALLBACK), None) is None:
                    yield Paragraph(paragraph, document).text


def text(path: Path) -> Iterator[str]:
    """Yield the beginning of a text file, in one of the encodings that uploads accept."""
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
            "The file contains no text; it may be a scan. Upload a version whose text can be selected."
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
        output = extract(kind, Path(path))
    except Refused as refused:
        output = str(refused)
    except MemoryError:
        output = TOO_MUCH
    else:
        sys.stdout.buffer.write(output.encode("utf-8", "replace"))
        return
    sys.stdout.buffer.write(output.encode())
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
