"""CVs from upload to result."""

import time
from io import BytesIO
from typing import Any

import docx
import pytest
from conftest import Site
from fpdf import FPDF

TEXT = """Ada Lovelace
ada@example.com | +44 20 7946 0018
Skills: Python, C++, Redis, Go and PostgreSQL
"""


def pdf(text: str = TEXT, **encryption: str) -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    if encryption:
        document.set_encryption(**encryption)
    document.multi_cell(0, text=text)
    return bytes(document.output())


def word(text: str = TEXT) -> bytes:
    document = docx.Document()
    first, *rest = text.splitlines()
    document.add_paragraph(first)
    table = document.add_table(len(rest), 1)
    for row, line in zip(table.rows, rest, strict=True):
        row.cells[0].text = line
    target = BytesIO()
    document.save(target)
    return target.getvalue()


def finished(site: Site, user: str, batch_id: str) -> dict[str, Any]:
    with site.http(user) as http:
        for _ in range(400):
            batch = http.get(f"/batches/{batch_id}").json()
            if batch["status"] == "done":
                return dict(batch)
            time.sleep(0.05)
    raise AssertionError(f"not done: {batch}\n{site.worker.log.read_text()}")


@pytest.mark.parametrize(
    ("name", "content"), [("cv.pdf", pdf()), ("cv.docx", word()), ("cv.txt", TEXT.encode())]
)
def test_result(site: Site, user: str, name: str, content: bytes) -> None:
    with site.http(user) as http:
        answer = http.post("/batches", files=[("files", (name, content))])
    assert answer.status_code == 202, answer.text
    [cv] = finished(site, user, answer.json()["batch_id"])["cvs"]
    assert cv["status"] == "done", cv
    assert cv["result"] == {
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "phone": "+44 20 7946 0018",
        "skills": ["C++", "Go", "PostgreSQL", "Python", "Redis"],
    }
