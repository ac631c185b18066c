"""CVs as PDF, Word and text files, also harmful ones, and what uploads them to an api under test."""

import io
import zipfile
from typing import Any

import docx
import httpx
import pypdf
from fpdf import FPDF

from tests.kit.app import Site
from tests.kit.process import wait_until

TEXT = """Curriculum Vitae
Ada Lovelace
ada@example.com | +44 20 7946 0018
Skills: Python, C++, Redis, Go and PostgreSQL; we go on.
"""


def pdf(text: str = TEXT, pages: int = 1) -> bytes:
    """Return a PDF with the text on each page."""
    document = FPDF()
    document.set_font("helvetica", size=12)
    for _ in range(pages):
        document.add_page()
        document.multi_cell(0, text=text)
    return bytes(document.output())


def locked_pdf(password: str) -> bytes:
    """Return a PDF that needs the password to open; with an empty one only printing is restricted."""
    writer = pypdf.PdfWriter(io.BytesIO(pdf()))
    writer.encrypt(password, "owner", algorithm="AES-256")
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def word(text: str = TEXT) -> bytes:
    """Return a Word document with the name in the page header and the rest in a table."""
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
    """Return a small PDF whose page unpacks to `content`."""
    writer = pypdf.PdfWriter(io.BytesIO(pdf()))
    page = writer.pages[0]
    page["/Contents"].get_object().set_data(b"BT /F1 1 Tf %s ET" % content)  # type: ignore
    page.compress_content_streams()
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def slow_pdf() -> bytes:
    """Return a PDF that takes seconds to read."""
    return pdf("Ada Lovelace " * 250, pages=90)


def upload(site: Site, user: str, **files: bytes) -> httpx.Response:
    """Upload files as one batch; `__` in a name means a dot."""
    with site.http(user) as http:
        return http.post(
            "/batches", files=[("files", (name.replace("__", "."), data)) for name, data in files.items()]
        )


def finished(site: Site, user: str, batch_id: str) -> dict[str, Any]:
    """Return the batch once it is done."""
    with site.http(user) as http:

        def done() -> dict[str, Any]:
            batch: dict[str, Any] = http.get(f"/batches/{batch_id}").json()
            return batch if batch["status"] == "done" else {}

        return wait_until(f"the batch is done\n{site.worker.log()[-3000:]}", done, seconds=40)
