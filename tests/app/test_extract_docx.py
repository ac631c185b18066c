"""The extracted text is what a Word document shows, whichever program wrote it."""

import io
import zipfile
from pathlib import Path

import docx
import pytest
from docx.enum.section import WD_SECTION
from docx.shared import Pt

from app import extract
from tests.app.documents import EMAIL, NAME, PHONE, WORD, changed, found, read, saved, word, word_with

CONTACT = (NAME, EMAIL, PHONE)
LINES = (NAME, f"{EMAIL} | {PHONE}")


@pytest.mark.parametrize("place", ["header", "footer"])
@pytest.mark.parametrize("pages", ["first", "default", "even"])
def test_page_headers_and_footers(place: str, pages: str, tmp_path: Path) -> None:
    document = docx.Document()
    section = document.sections[0]
    document.settings.odd_and_even_pages_header_footer = pages == "even"
    section.different_first_page_header_footer = pages == "first"
    part = getattr(section, place if pages == "default" else f"{pages}_page_{place}")
    for line in LINES:
        part.add_paragraph(line)
    document.add_paragraph("Experience")
    assert found("docx", saved(document), tmp_path) == CONTACT


def test_headers_that_no_page_shows_are_not_read(tmp_path: Path) -> None:
    document = docx.Document()
    section = document.sections[0]
    section.first_page_header.paragraphs[0].text = "Grace Hopper"
    section.even_page_header.paragraphs[0].text = "Mary Jackson"
    document.add_paragraph(NAME)
    assert read("docx", saved(document), tmp_path).split("\n") == [NAME, ""]


def test_header_of_several_sections_is_read_once(tmp_path: Path) -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = NAME
    document.add_section(WD_SECTION.NEW_PAGE)
    header = document.add_section(WD_SECTION.NEW_PAGE).header
    header.is_linked_to_previous = False
    header.paragraphs[0].text = "Publications"
    text = read("docx", saved(document), tmp_path)
    assert (text.count(NAME), text.count("Publications")) == (1, 1)


BOX = f"<w:txbxContent><w:p><w:r><w:t>{EMAIL}</w:t></w:r></w:p></w:txbxContent>"
TEXT_BOX = (
    '<w:p><w:r><mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
    f'<mc:Choice Requires="wps"><w:drawing>{BOX}</w:drawing></mc:Choice><mc:Fallback><w:pict>{BOX}</w:pict>'
    f"</mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>{NAME}</w:t></w:r></w:p>"
)


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (f"<w:tbl><w:tr><w:tc><w:p><w:r><w:t>{NAME}</w:t></w:r></w:p></w:tc></w:tr></w:tbl>", [NAME]),
        (f"<w:p><w:sdt><w:sdtContent><w:r><w:t>{NAME}</w:t></w:r></w:sdtContent></w:sdt></w:p>", [NAME]),
        ("<w:p><w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent><w:r><w:t>Your Name</w:t></w:r>"
         f"</w:sdtContent></w:sdt><w:r><w:t>{NAME}</w:t></w:r></w:p>", [NAME]),
        (f"<w:p><w:ins><w:r><w:t>{NAME}</w:t></w:r></w:ins></w:p>", [NAME]),
        ("<w:p><w:del><w:r><w:t>Grace</w:t></w:r></w:del></w:p>", [""]),
        ("<w:p><w:moveFrom><w:r><w:t>Grace Hopper</w:t></w:r></w:moveFrom></w:p>", [""]),
        ("<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>Grace</w:t></w:r></w:p>", [""]),
        ('<w:p><w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>Ada</w:t></w:r></w:p>', ["Ada"]),
        (f"<w:p><w:fldSimple><w:r><w:t>{NAME}</w:t></w:r></w:fldSimple></w:p>", [NAME]),
        (f'<w:p><w:r><w:instrText>HYPERLINK "mailto:{EMAIL}?subject=CV"</w:instrText></w:r>'
         "<w:r><w:t>Email</w:t></w:r></w:p>", [f"Email {EMAIL}"]),
        ("<w:p><w:r><w:t>Ada</w:t><w:br/><w:t>Love</w:t><w:noBreakHyphen/><w:t>lace</w:t></w:r></w:p>",
         ["Ada", "Love-lace"]),
    ],
    ids=["table", "content control", "prompt", "inserted", "deleted", "moved away", "hidden",
         "not hidden", "field", "link as a field", "line break"],
)  # fmt: skip
def test_only_what_the_page_shows(body: str, lines: list[str], tmp_path: Path) -> None:
    text = read("docx", word_with(f"{body}<w:p><w:r><w:t>End</w:t></w:r></w:p>"), tmp_path)
    assert text == "\n".join([*lines, "End", ""])


FRAME = (
    f"<w:p><w:pPr><w:framePr/></w:pPr><w:r><w:t>{EMAIL}</w:t></w:r></w:p>"
    f"<w:p><w:r><w:t>{NAME}</w:t></w:r></w:p>"
)


@pytest.mark.parametrize("body", [TEXT_BOX, FRAME], ids=["text box", "frame"])
def test_text_beside_the_body_is_read_once_and_apart(body: str, tmp_path: Path) -> None:
    """Otherwise an address could appear among the references, depending on where its box is anchored."""
    text = read("docx", word_with(f"{body}<w:p><w:r><w:t>End</w:t></w:r></w:p>"), tmp_path)
    assert text.split("\n") == [NAME, "End", "\f", EMAIL, ""]


def test_columns_of_a_table_do_not_follow_each_other(tmp_path: Path) -> None:
    document = docx.Document()
    left, right = document.add_table(1, 2).rows[0].cells
    for line in (NAME, "Experience", "Analyst", "References", "Grace Hopper", "grace.hopper@gmail.com"):
        left.add_paragraph(line)
    for line in LINES[1:]:
        right.add_paragraph(line)
    assert found("docx", saved(document), tmp_path) == CONTACT


def test_address_behind_a_link(tmp_path: Path) -> None:
    relationship = (
        f'<Relationship Id="mail" Type="x/hyperlink" Target="mailto:{EMAIL}" TargetMode="External"/>'
    )
    data = changed(
        word_with(f'<w:p><w:hyperlink r:id="mail"><w:r><w:t>{NAME}</w:t></w:r></w:hyperlink></w:p>'),
        {RELATIONSHIPS: lambda xml: xml.replace("</Relationships>", f"{relationship}</Relationships>")},
    )
    assert read("docx", data, tmp_path) == f"{NAME} {EMAIL}\n"


OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONSHIPS = "word/_rels/document.xml.rels"
MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


@pytest.mark.parametrize("target", ["NULL", "#_top", "../NULL", "media/gone.png"])
def test_dangling_relationship(target: str, tmp_path: Path) -> None:
    relationship = f'<Relationship Id="gone" Type="{OFFICE}/image" Target="{target}"/>'
    data = changed(
        word(*LINES),
        {RELATIONSHIPS: lambda xml: xml.replace("</Relationships>", f"{relationship}</Relationships>")},
    )
    assert found("docx", data, tmp_path) == CONTACT


@pytest.mark.parametrize(
    "main",
    [
        "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
        "application/vnd.ms-word.document.macroEnabled.main+xml",
        "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
    ],
)
def test_templates_and_documents_with_macros(main: str, tmp_path: Path) -> None:
    data = changed(word(*LINES), {"[Content_Types].xml": lambda xml: xml.replace(MAIN, main)})
    assert found("docx", data, tmp_path) == CONTACT


def strict(xml: str) -> str:
    """Write the namespaces of ISO 29500 Strict, as Word does on request."""
    return (
        xml.replace(WORD, "http://purl.oclc.org/ooxml/wordprocessingml/main")
        .replace(OFFICE, "http://purl.oclc.org/ooxml/officeDocument/relationships")
        .replace(
            "http://schemas.openxmlformats.org/drawingml/2006/main",
            "http://purl.oclc.org/ooxml/drawingml/main",
        )
    )


def test_strict_form(tmp_path: Path) -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = NAME
    document.add_paragraph(LINES[1])
    parts = ["_rels/.rels", RELATIONSHIPS, "word/document.xml", "word/header1.xml"]
    assert found("docx", changed(saved(document), dict.fromkeys(parts, strict)), tmp_path) == CONTACT


def test_main_part_of_another_name(tmp_path: Path) -> None:
    """Word on the web numbers it, others write names in capitals or with backslashes."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(word(*LINES))) as source, zipfile.ZipFile(target, "w") as archive:
        for part in source.namelist():
            name = part.replace("document.xml", "document2.xml").replace("/", "\\").replace("word", "Word")
            content = source.read(part).replace(b"word/document.xml", b"word/document2.xml")
            archive.writestr(zipfile.ZipInfo(name), content)
    assert found("docx", target.getvalue(), tmp_path) == CONTACT


def test_smart_art_and_notes(tmp_path: Path) -> None:
    art = (
        '<w:p><w:r><w:drawing><d:relIds xmlns:d="http://schemas.openxmlformats.org/drawingml/2006/diagram" '
        f'xmlns:r="{OFFICE}" r:dm="art"/></w:drawing></w:r></w:p>'
    )
    relationships = (
        f'<Relationship Id="art" Type="{OFFICE}/diagramData" Target="diagrams/data1.xml"/>'
        f'<Relationship Id="notes" Type="{OFFICE}/footnotes" Target="footnotes.xml"/></Relationships>'
    )
    a = "http://schemas.openxmlformats.org/drawingml/2006/main"
    data = changed(
        word_with(art),
        {
            RELATIONSHIPS: lambda xml: xml.replace("</Relationships>", relationships),
            "word/diagrams/data1.xml": lambda _: (
                f'<x xmlns:a="{a}"><a:p><a:r><a:t>{NAME}</a:t></a:r></a:p></x>'
            ),
            "word/footnotes.xml": lambda _: (
                f'<w:x xmlns:w="{WORD}"><w:p><w:r><w:t>{EMAIL}</w:t></w:r></w:p></w:x>'
            ),
        },
    )
    assert found("docx", data, tmp_path) == (NAME, EMAIL, None)


def test_document_type_is_refused(tmp_path: Path) -> None:
    entity = '<!DOCTYPE w [<!ENTITY a "Ada Lovelace">]><w:document'
    data = changed(
        word_with("<w:p><w:r><w:t>&a;</w:t></w:r></w:p>"),
        {"word/document.xml": lambda xml: xml.replace("<w:document", entity, 1)},
    )
    with pytest.raises(extract.Refused, match="damaged"):
        read("docx", data, tmp_path)


def test_word_in_several_runs_is_one_word(tmp_path: Path) -> None:
    document = docx.Document()
    paragraph = document.add_paragraph()
    for letter in NAME:
        paragraph.add_run(letter).font.size = Pt(11)
    assert found("docx", saved(document), tmp_path)[0] == NAME
