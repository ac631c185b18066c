"""Programs and libraries that write CVs as DOCX or PDF, for the extraction benchmark.

A writer takes a CV and the file to write. Where a program has headers, footers, columns and text boxes of its
own they are used; libraries that draw text at coordinates get those.
"""

import html
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import typeset
from bench.cvs import CV, LAYOUTS, PAGE, page, placed
from bench.typeset import FONT, run

DRAWN = ["block", "sidebar", "table", "header", "footer", "box", "split", "right"]
FLOWING = ["block", "table", "link", "split"]


@dataclass(frozen=True)
class Writer:
    """A writer: what it needs (a program, module or package of npm) and the layouts that it can make."""

    name: str
    needs: str
    suffix: str
    layouts: list[str]
    write: Callable[[CV, Path], None] | None  # None: bench/writers.cjs has it

    def is_there(self) -> bool:
        """Return whether the writer is installed."""
        if self.write is None:
            folder = Path(os.environ.get("NODE_PATH", "."))
            return shutil.which("node") is not None and (folder / self.needs).is_dir()
        return bool(shutil.which(self.needs) or importlib.util.find_spec(self.needs))


def _page_file(cv: CV, target: Path, margin_boxes: bool = False) -> Path:
    source = target.with_suffix(".html")
    source.write_text(page(cv, margin_boxes))
    return source


def _chromium(cv: CV, target: Path) -> None:
    run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer",
         f"--user-data-dir={target.parent / 'chromium'}", f"--print-to-pdf={target}",
         _page_file(cv, target).as_uri())  # fmt: skip


def _wkhtmltopdf(cv: CV, target: Path) -> None:
    run("wkhtmltopdf", "--quiet", _page_file(cv, target), target)


def _weasyprint(cv: CV, target: Path) -> None:
    importlib.import_module("weasyprint").HTML(string=page(cv, margin_boxes=True)).write_pdf(target)


def _pandoc(cv: CV, target: Path) -> None:
    run("pandoc", "--from", "html", "--output", target, _page_file(cv, target))


def _flat_odt(cv: CV) -> str:
    """Return a CV as a document of LibreOffice in one XML file."""
    e = html.escape

    def lines(*texts: str) -> str:
        return "".join(f"<text:p>{e(text)}</text:p>" for text in texts)

    values = [value for _, value in cv.contact]
    body = "".join(f"<text:h>{heading}</text:h>{lines(*texts)}" for heading, texts in cv.body)
    name = f"<text:h>{e(cv.name)}</text:h>"
    frame = (
        '<draw:frame draw:style-name="fr" text:anchor-type="page" text:anchor-page-number="1" '
        'svg:x="14cm" svg:y="1cm" '
        f'svg:width="6cm" svg:height="3cm"><draw:text-box>{lines(*values)}</draw:text-box></draw:frame>'
    )

    def table(*rows: tuple[str, ...]) -> str:
        cells = "".join(
            "<table:table-row>{}</table:table-row>".format(
                "".join(f"<table:table-cell>{cell}</table:table-cell>" for cell in row)
            )
            for row in rows
        )
        return f'<table:table><table:table-column table:number-columns-repeated="2"/>{cells}</table:table>'

    link = f'<text:p><text:a xlink:href="mailto:{e(cv.email)}">Email</text:a> | {e(cv.phone)}</text:p>'
    first, _, rest = cv.name.upper().partition(" ")
    content = {
        "sidebar": table((lines("Contact", *values), name + body)),
        "right": table((name + body, lines("Contact", *values))),
        "table": name + table(*((lines(label), lines(value)) for label, value in cv.contact)) + body,
        "header": body,
        "footer": name + body,
        "box": frame + name + body,
        "split": lines(first, rest, *values) + body,
        "link": name + link + body,
    }.get(cv.layout, name + lines(" | ".join(values)) + body)
    names = {"office": "office", "text": "text", "table": "table", "draw": "drawing", "style": "style"}
    spaces = " ".join(
        f'xmlns:{key}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for key, name in names.items()
    )
    other = {"fo": "xsl-fo", "svg": "svg"}
    spaces += "".join(
        f' xmlns:{k}="urn:oasis:names:tc:opendocument:xmlns:{v}-compatible:1.0"' for k, v in other.items()
    )
    spaces += ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    header = (
        f"<style:header-first>{lines(cv.name, *values)}</style:header-first>" if cv.layout == "header" else ""
    )
    header = f"<style:header>{lines('Continued')}</style:header>{header}" if header else ""
    footer = f"<style:footer>{lines(' | '.join(values))}</style:footer>" if cv.layout == "footer" else ""
    height = '<style:header-footer-properties fo:min-height="1cm"/>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><office:document {spaces} office:version="1.3" '
        'office:mimetype="application/vnd.oasis.opendocument.text"><office:automatic-styles>'
        '<style:style style:name="fr" style:family="graphic"/><style:page-layout style:name="pl">'
        f"<style:header-style>{height}</style:header-style><style:footer-style>{height}</style:footer-style>"
        "</style:page-layout></office:automatic-styles><office:master-styles>"
        '<style:master-page style:name="Standard" '
        f'style:page-layout-name="pl">{header}{footer}</style:master-page></office:master-styles>'
        f"<office:body><office:text>{content}</office:text></office:body></office:document>"
    )


def _libreoffice(cv: CV, target: Path) -> None:
    source = target.with_suffix(".fodt")
    source.write_text(_flat_odt(cv))
    run("soffice", f"-env:UserInstallation={(target.parent / 'soffice').as_uri()}", "--headless",
         "--convert-to", target.suffix[1:], "--outdir", target.parent, source)  # fmt: skip


def _abiword(cv: CV, target: Path) -> None:
    run("abiword", f"--to={target.suffix[1:]}", f"--to-name={target}", _page_file(cv, target))


def _python_docx(cv: CV, target: Path) -> None:
    document: Any = importlib.import_module("docx").Document()
    section = document.sections[0]
    values = [value for _, value in cv.contact]
    body, side = document, document
    if cv.layout in ("sidebar", "right"):
        left, right = document.add_table(1, 2).rows[0].cells
        side, body = (left, right) if cv.layout == "sidebar" else (right, left)
    if cv.layout == "header":
        section.different_first_page_header_footer = True
        side = section.first_page_header
        side.add_paragraph(cv.name)
    elif cv.layout == "footer":
        side = section.footer
    if cv.layout != "header":
        body.add_paragraph(cv.name)
    if cv.layout == "table":
        table = document.add_table(0, 2)
        for pair in cv.contact:
            for cell, text in zip(table.add_row().cells, pair, strict=True):
                cell.text = text
    else:
        for value in values:
            side.add_paragraph(value)
    for heading, lines in cv.body:
        for text in (heading, *lines):
            body.add_paragraph(text)
    document.save(target)


def _fpdf2(cv: CV, target: Path) -> None:
    document = importlib.import_module("fpdf").FPDF(unit="pt", format="A4")
    document.add_font("font", fname=FONT)
    document.add_page()
    for item in placed(cv):
        document.set_font("font", size=item.size)
        document.text(item.x, item.y, item.text)
    document.output(str(target))


def _reportlab(cv: CV, target: Path) -> None:
    fonts = importlib.import_module("reportlab.pdfbase.ttfonts")
    importlib.import_module("reportlab.pdfbase.pdfmetrics").registerFont(fonts.TTFont("font", FONT))
    canvas = importlib.import_module("reportlab.pdfgen.canvas").Canvas(str(target), pagesize=PAGE)
    for item in placed(cv):
        canvas.setFont("font", item.size)
        canvas.drawString(item.x, PAGE[1] - item.y, item.text)
    canvas.save()


_TCPDF = r"""<?php require '/usr/share/php/tcpdf/tcpdf.php';
$job = json_decode(file_get_contents('php://stdin'));
$d = new TCPDF('P', 'pt', 'A4'); $d->setPrintHeader(false); $d->setPrintFooter(false);
$font = TCPDF_FONTS::addTTFfont($job->font, 'TrueTypeUnicode', '', 32, $job->folder . '/');
$d->SetAutoPageBreak(false); $d->AddPage(); $d->SetFont($font, '', 9, $job->folder . "/$font.php");
foreach ($job->placed as $p) { $d->SetFontSize($p->size); $d->Text($p->x, $p->y - $p->size, $p->text); }
$d->Output($job->target, 'F');"""
_PDF_API2 = r"""use JSON::PP; use PDF::API2; local $/; my $job = decode_json(<STDIN>); my $d = PDF::API2->new;
my $page = $d->page; $page->mediabox(595, 842); my $font = $d->ttfont($job->{font}); my $text = $page->text;
for (@{$job->{placed}}) { $text->font($font, $_->{size}); $text->translate($_->{x}, 842 - $_->{y});
  $text->text($_->{text}) }
$d->saveas($job->{target});"""


def _scripted(*command: str, cv: CV, target: Path) -> None:
    """Run a script that draws the lines of a CV at their places; it reads the job from its input."""
    job = {"font": str(FONT), "folder": str(target.parent), "target": str(target)}
    run(*command, data=json.dumps(job | {"placed": [asdict(item) for item in placed(cv)]}))


def _tcpdf(cv: CV, target: Path) -> None:
    script = target.parent / "tcpdf.php"
    script.write_text(_TCPDF)
    _scripted("php", str(script), cv=cv, target=target)


def _pdf_api2(cv: CV, target: Path) -> None:
    _scripted("perl", "-e", _PDF_API2, cv=cv, target=target)


TEX = [*DRAWN, "link"]
WRITERS = [
    Writer("LibreOffice", "soffice", ".docx", LAYOUTS, _libreoffice),
    Writer("python-docx", "docx", ".docx", DRAWN, _python_docx),
    Writer("docx (npm)", "docx", ".docx", LAYOUTS, None),
    Writer("html-to-docx", "html-to-docx", ".docx", FLOWING, None),
    Writer("pandoc", "pandoc", ".docx", FLOWING, _pandoc),
    Writer("AbiWord", "abiword", ".docx", FLOWING, _abiword),
    Writer("LibreOffice", "soffice", ".pdf", LAYOUTS, _libreoffice),
    Writer("AbiWord", "abiword", ".pdf", FLOWING, _abiword),
    Writer("Chromium", "chromium", ".pdf", LAYOUTS, _chromium),
    Writer("wkhtmltopdf", "wkhtmltopdf", ".pdf", LAYOUTS, _wkhtmltopdf),
    Writer("WeasyPrint", "weasyprint", ".pdf", LAYOUTS, _weasyprint),
    Writer("pdfTeX", "pdflatex", ".pdf", TEX, partial(typeset.tex, "pdflatex")),
    Writer("XeTeX", "xelatex", ".pdf", TEX, partial(typeset.tex, "xelatex")),
    Writer("LuaTeX", "lualatex", ".pdf", TEX, partial(typeset.tex, "lualatex")),
    Writer("Typst", "typst", ".pdf", LAYOUTS, typeset.typst),
    Writer("groff", "groff", ".pdf", ["block", "header", "footer"], typeset.groff),
    Writer("Apache FOP", "fop", ".pdf", ["block", "header", "footer", "box", "table"], typeset.fop),
    Writer("Pango and cairo", "pango-view", ".pdf", ["block"], typeset.pango),
    Writer("fpdf2", "fpdf", ".pdf", DRAWN, _fpdf2),
    Writer("ReportLab", "reportlab", ".pdf", DRAWN, _reportlab),
    Writer("TCPDF", "php", ".pdf", DRAWN, _tcpdf),
    Writer("PDF::API2", "perl", ".pdf", DRAWN, _pdf_api2),
    Writer("PDFKit", "pdfkit", ".pdf", DRAWN, None),
    Writer("jsPDF", "jspdf", ".pdf", DRAWN, None),
    Writer("pdfmake", "pdfmake", ".pdf", LAYOUTS, None),
    Writer("react-pdf", "@react-pdf/renderer", ".pdf", DRAWN, None),
    Writer("pdf-lib", "pdf-lib", ".pdf", DRAWN, None),
]
