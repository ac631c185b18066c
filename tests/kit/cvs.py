"""CVs as files: plain, encrypted, slow to read, and made to do harm."""

import io
import zipfile

import docx
import pypdf
from fpdf import FPDF

TEXT = """Curriculum Vitae
Ada Lovelace
ada@example.com | +44 20 7946 0018
Skills: Python, C++, Redis, Go and PostgreSQL; we go on.
"""
RESULT = {
    "name": "Ada Lovelace",
    "email": "ada@example.com",
    "phone": "+44 20 7946 0018",
    "skills": ["C++", "Go", "PostgreSQL", "Python", "Redis"],
}
SHORT = b"Ada Lovelace\nada@example.com\n+44 20 7946 0018\nSkills: Python, Redis, nginx\n"


def pdf(text: str = TEXT, pages: int = 1) -> bytes:
    """Return a PDF with the text on each of its pages."""
    document = FPDF()
    document.set_font("helvetica", size=12)
    for _ in range(pages):
        document.add_page()
        document.multi_cell(0, text=text)
    return bytes(document.output())


def locked_pdf(password: str) -> bytes:
    """Return a PDF that opens with the password only."""
    writer = pypdf.PdfWriter(io.BytesIO(pdf()))
    writer.encrypt(password, "owner", algorithm="AES-256")
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def word(text: str = TEXT) -> bytes:
    """Return a Word document: the text's second line is the page header, the rest a table."""
    document = docx.Document()
    _, name, *rest = text.splitlines()
    document.sections[0].header.paragraphs[0].text = name
    table = document.add_table(len(rest), 1)
    for row, line in zip(table.rows, rest, strict=True):
        row.cells[0].text = line
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()


def word_with(body: bytes) -> bytes:
    """Return a Word document whose body begins with this XML."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(word())) as source,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for part in source.namelist():
            content = source.read(part)
            if part == "word/document.xml":
                content = content.replace(b"<w:body>", b"<w:body>" + body)
            archive.writestr(part, content)
    return target.getvalue()


def endless_pdf(content: bytes) -> bytes:
    """Return a small PDF whose only page unpacks to `content`."""
    writer = pypdf.PdfWriter(io.BytesIO(pdf()))
    page = writer.pages[0]
    page["/Contents"].get_object().set_data(b"BT /F1 1 Tf %s ET" % content)  # type: ignore
    page.compress_content_streams()
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def slow_pdf() -> bytes:
    """Return a PDF that takes the worker seconds to read."""
    return pdf("Ada Lovelace " * 250, pages=90)
