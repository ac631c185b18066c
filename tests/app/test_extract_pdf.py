"""The extracted text is what a PDF shows, in whichever order its writer drew it."""

import io
import subprocess
from pathlib import Path

import pypdf
import pytest
from fpdf import FPDF
from pypdf.annotations import FreeText

from tests.app.documents import EMAIL, NAME, PHONE, found, read

CONTACT = (NAME, EMAIL, PHONE)
REFERENCES = ["REFERENCES", "Grace Hopper", "grace.hopper@gmail.com", "+1 212 555 0134"]
BODY = [(60, 200 + 15 * n, text) for n, text in enumerate(["EXPERIENCE", "Analyst", *REFERENCES])]


def drawn(*texts: tuple[float, float, str]) -> bytes:
    """Return a page with each text at its place, in points from the top left, drawn in the order given."""
    document = FPDF(unit="pt", format="A4")
    document.add_page()
    document.set_font("helvetica", size=10)
    for x, y, text in texts:
        document.text(x, y, text)
    return bytes(document.output())


@pytest.mark.parametrize(
    "texts",
    [
        [(60, 60, NAME), (60, 80, f"{EMAIL} | {PHONE}"), *BODY],
        [(60, 60, NAME), *BODY, (60, 815, f"{EMAIL} | {PHONE}")],
        [(60, 60, NAME), *BODY, (400, 40, EMAIL), (400, 55, PHONE)],
        [*BODY, (60, 30, f"{NAME} - {EMAIL} - {PHONE}")],
        [(400, 40, "CONTACT"), (400, 55, EMAIL), (400, 70, PHONE), (60, 40, NAME), *BODY],
        [*reversed(BODY), (60, 80, PHONE), (60, 70, EMAIL), (60, 60, NAME)],
    ],
    ids=["in order", "footer", "box drawn last", "header drawn last", "side column first", "bottom first"],
)
def test_order_of_drawing(texts: list[tuple[float, float, str]], tmp_path: Path) -> None:
    assert found("pdf", drawn(*texts), tmp_path) == CONTACT


def test_words_at_places_of_their_own(tmp_path: Path) -> None:
    """Two columns, drawn word by word across both."""
    lines = [(60, 60, NAME), (60, 80, "Skills"), (60, 95, "Python and Redis"), *BODY[2:]]
    lines += [(400, 60, "Contact"), (400, 80, EMAIL), (400, 95, PHONE), (400, 110, "London")]
    words = [
        (x + 5.5 * len(text[: text.index(word)]), y, word)
        for x, y, text in sorted(lines, key=lambda line: -line[1])
        for word in text.split()
    ]
    assert found("pdf", drawn(*words), tmp_path) == CONTACT


@pytest.mark.parametrize(
    ("drawn_text", "text"),
    [
        ("Ren\xb4e", "René"),
        ("Ren \xb4e", "Ren é"),
        ("M\xa8uller", "Müller"),
        ("A\xadda", "Ada"),
        ("2\xb4", "2\xb4"),
    ],
)
def test_accents_apart_from_their_letters(drawn_text: str, text: str, tmp_path: Path) -> None:
    assert read("pdf", drawn((60, 60, drawn_text)), tmp_path).strip() == text


def test_ligature_is_its_letters(tmp_path: Path) -> None:
    document = FPDF()
    document.add_page()
    document.add_font("dejavu", fname="/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
    document.set_font("dejavu")
    document.multi_cell(0, text="Soﬁa Griﬃth\nsoﬁa@example.com")
    assert found("pdf", bytes(document.output()), tmp_path)[:2] == ("Sofia Griffith", "sofia@example.com")


def linked() -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("helvetica")
    document.cell(text=NAME, link=f"mailto:{EMAIL}?subject=CV")
    return bytes(document.output())


def test_address_behind_a_link(tmp_path: Path) -> None:
    assert found("pdf", linked(), tmp_path) == (NAME, EMAIL, None)


def test_text_typed_onto_the_page(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(io.BytesIO(drawn((60, 60, NAME))))
    writer.add_annotation(0, FreeText(text=f"{EMAIL} {PHONE}", rect=(60, 600, 300, 620)))
    target = io.BytesIO()
    writer.write(target)
    assert found("pdf", target.getvalue(), tmp_path) == CONTACT


@pytest.mark.parametrize("side", ["left", "right"])
def test_print_of_a_browser(side: str, tmp_path: Path) -> None:
    page = tmp_path / "cv.html"
    page.write_text(
        f"<meta charset=utf-8><div style='float:{side};width:30%'><h2>Contact</h2><p>{EMAIL}<p>{PHONE}</div>"
        f"<div style='float:{side};width:70%'><h1>{NAME}</h1><h2>References</h2>"
        f"<p>{'<p>'.join(REFERENCES)}</div>"
    )
    printed = tmp_path / "cv.pdf"
    subprocess.run(
        ["/usr/bin/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
         f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={printed}", page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert found("pdf", printed.read_bytes(), tmp_path) == CONTACT
