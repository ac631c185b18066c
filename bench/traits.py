"""CVs with the structure of writers that do not run here: Word, Word on the web, Google Docs, Pages, Canva.

These are not files of those programs. Each has one trait that their documents are known to have.
"""

import importlib
import io
import zipfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from bench.cvs import CV, PAGE, placed
from bench.typeset import FONT

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"
MAIN_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
RELATIONSHIPS = "word/_rels/document.xml.rels"


def _paragraph(text: str, run: str = "{}") -> str:
    return f"<w:p>{run.format(f'<w:r><w:t>{escape(text)}</w:t></w:r>')}</w:p>"


def _word(target: Path, body: str, changes: dict[str, Callable[[str], str]] | None = None) -> None:
    """Write a document with this body, and with some of its parts changed."""
    blank = io.BytesIO()
    importlib.import_module("docx").Document().save(blank)
    changes = {"word/document.xml": lambda xml: xml.replace("<w:body>", f"<w:body>{body}")} | (changes or {})
    with zipfile.ZipFile(blank) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in source.namelist():
            content = source.read(part)
            archive.writestr(part, changes[part](content.decode()) if part in changes else content)


def _lines(cv: CV, contact: bool = True) -> list[str]:
    found = [cv.name, *(value for _, value in cv.contact)] if contact else []
    return found + [text for heading, lines in cv.body for text in (heading, *lines)]


def _plain(cv: CV) -> str:
    return "".join(map(_paragraph, _lines(cv)))


def _content_controls(cv: CV, target: Path) -> None:
    control = "<w:sdt><w:sdtContent>{}</w:sdtContent></w:sdt>"
    prompt = _paragraph(
        "Your Name", control.replace("<w:sdtC", "<w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtC", 1)
    )
    head = "".join(_paragraph(value, control) for value in (cv.name, cv.email, cv.phone))
    _word(target, prompt + head + "".join(map(_paragraph, _lines(cv, contact=False))))


def _text_box(cv: CV, target: Path) -> None:
    box = "".join(map(_paragraph, (cv.name, cv.email, cv.phone)))
    box = f"<w:txbxContent>{box}</w:txbxContent>"
    anchor = (
        f'<w:p><w:r><mc:AlternateContent xmlns:mc="{MC}"><mc:Choice Requires="wps">'
        f"<w:drawing>{box}</w:drawing></mc:Choice><mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    _word(target, anchor + "".join(map(_paragraph, _lines(cv, contact=False))))


def _first_page_header(cv: CV, target: Path) -> None:
    document: Any = importlib.import_module("docx").Document()
    document.sections[0].different_first_page_header_footer = True
    document.sections[0].first_page_header.add_paragraph(cv.name)
    document.sections[0].first_page_footer.add_paragraph(f"{cv.email} | {cv.phone}")
    for line in _lines(cv, contact=False):
        document.add_paragraph(line)
    document.save(target)


def _dangling(cv: CV, target: Path) -> None:
    extra = f'<Relationship Id="rIdX" Type="{R}/image" Target="NULL"/></Relationships>'
    _word(target, _plain(cv), {RELATIONSHIPS: lambda xml: xml.replace("</Relationships>", extra)})


def _typed(kind: str) -> Callable[[CV, Path], None]:
    def write(cv: CV, target: Path) -> None:
        _word(target, _plain(cv), {"[Content_Types].xml": lambda xml: xml.replace(MAIN_TYPE, kind)})

    return write


def _strict(cv: CV, target: Path) -> None:
    body = _plain(cv)

    def rename(xml: str) -> str:
        xml = xml.replace(R, "http://purl.oclc.org/ooxml/officeDocument/relationships")
        return xml.replace(W, "http://purl.oclc.org/ooxml/wordprocessingml/main")

    def fill(xml: str) -> str:
        return rename(xml.replace("<w:body>", f"<w:body>{body}"))

    _word(target, body, {"word/document.xml": fill, "_rels/.rels": rename, RELATIONSHIPS: rename})


def _numbered(cv: CV, target: Path) -> None:
    plain = target.with_suffix(".plain")
    _word(plain, _plain(cv))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(target, "w") as archive:
        for part in source.namelist():
            content = source.read(part).replace(b"word/document.xml", b"word/document2.xml")
            archive.writestr(part.replace("document.xml", "document2.xml"), content)


def _linked(cv: CV, target: Path) -> None:
    link = (
        f'<Relationship Id="rIdX" Type="{R}/hyperlink" Target="mailto:{cv.email}" TargetMode="External"/>'
        "</Relationships>"
    )
    head = (
        _paragraph(cv.name)
        + _paragraph("Email", '<w:hyperlink r:id="rIdX">{}</w:hyperlink>')
        + _paragraph(cv.phone)
    )
    body = head + "".join(map(_paragraph, _lines(cv, contact=False)))
    _word(target, body, {RELATIONSHIPS: lambda xml: xml.replace("</Relationships>", link)})


def _canvas(target: Path) -> Any:
    metrics = importlib.import_module("reportlab.pdfbase.pdfmetrics")
    fonts = importlib.import_module("reportlab.pdfbase.ttfonts")
    metrics.registerFont(fonts.TTFont("font", FONT))
    return importlib.import_module("reportlab.pdfgen.canvas").Canvas(str(target), pagesize=PAGE)


def _words_apart(cv: CV, target: Path) -> None:
    """Position each word separately, the bottom of the page first."""
    canvas = _canvas(target)
    for item in reversed(placed(cv)):
        canvas.setFont("font", item.size)
        x = item.x
        for word in item.text.split(" "):
            canvas.drawString(x, PAGE[1] - item.y, word)
            x += canvas.stringWidth(word + " ", "font", item.size)
    canvas.save()


def _letters_apart(cv: CV, target: Path) -> None:
    """Draw the name in capitals with wide spacing, and the text in single letters."""
    canvas = _canvas(target)
    for item in placed(cv):
        canvas.setFont("font", item.size)
        if item.text == cv.name:
            canvas.drawString(item.x, PAGE[1] - item.y, item.text.upper(), charSpace=item.size / 3)
            continue
        x = item.x
        for letter in item.text:
            canvas.drawString(x, PAGE[1] - item.y, letter)
            x += canvas.stringWidth(letter, "font", item.size)
    canvas.save()


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml"
TRAITS: list[tuple[str, str, Callable[[CV, Path], None]]] = [
    ("Word: content controls with prompts", ".docx", _content_controls),
    ("Word: text box", ".docx", _text_box),
    ("Word: first-page header and footer", ".docx", _first_page_header),
    ("Word: relationship that leads nowhere", ".docx", _dangling),
    ("Word: template", ".docx", _typed(f"{DOCX}.template.main+xml")),
    ("Word: macros", ".docx", _typed("application/vnd.ms-word.document.macroEnabled.main+xml")),
    ("Word: strict form", ".docx", _strict),
    ("Word on the web: numbered main part", ".docx", _numbered),
    ("Google Docs: address behind a link", ".docx", _linked),
    ("Canva, Pages: words apart, last first", ".pdf", _words_apart),
    ("Canva: spaced capitals, letters apart", ".pdf", _letters_apart),
]
