"""Typesetting programs that write a CV as PDF, each from a source in its own language."""

import html
import importlib
import subprocess
from pathlib import Path

from bench.cvs import CV

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
TIMEOUT = 120  # seconds for one file


def run(
    *command: str | Path, data: str | None = None, cwd: Path | None = None, target: Path | None = None
) -> None:
    """Run a program, with its output to `target`. Raises RuntimeError with its last words."""
    done = subprocess.run(  # noqa: S603
        command,
        input=data.encode() if data else None,
        cwd=cwd,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise RuntimeError(f"{command[0]}: {words[-200:]}")
    if target:
        target.write_bytes(done.stdout)


def pango(cv: CV, target: Path) -> None:
    """Write lines of marked-up text; cairo makes the PDF."""
    lines = [f"<big>{html.escape(cv.name)}</big>", *(html.escape(value) for _, value in cv.contact)]
    lines += [html.escape(text) for heading, texts in cv.body for text in (f"\n{heading}", *texts)]
    source = target.with_suffix(".txt")
    source.write_text("\n".join(lines))
    run("pango-view", "--markup", "--no-display", f"--output={target}", source)


def typst(cv: CV, target: Path) -> None:
    """Write by Typst, with grids, page headers and placed boxes."""

    def raw(text: str) -> str:
        return '#text("' + text.replace('"', '\\"') + '")'

    values = " \\\n".join(raw(value) for _, value in cv.contact)
    body = "\n\n".join(f"= {heading}\n" + " \\\n".join(map(raw, lines)) for heading, lines in cv.body)
    name = f"#text(size: 24pt)[{raw(cv.name)}]"
    content = {
        "sidebar": f"#grid(columns: (30%, 70%), [= Contact\n{values}], [{name}\n\n{body}])",
        "right": f"#grid(columns: (70%, 30%), [{name}\n\n{body}], [= Contact\n{values}])",
        "header": f"#set page(header: [{raw(cv.name)} {values}])\n{body}",
        "footer": f"#set page(footer: [{values}])\n{name}\n\n{body}",
        "box": f"{name}\n\n{body}\n#place(top + right, [{values}])",
        "link": f'{name}\n\n#link("mailto:{cv.email}")[Email]\n\n{raw(cv.phone)}\n\n{body}',
    }.get(cv.layout, f"{name}\n\n{values}\n\n{body}")
    source = target.with_suffix(".typ")
    source.write_text(content)
    importlib.import_module("typst").compile(str(source), output=str(target))


_TEX = r"""\documentclass[a4paper]{article}
PREAMBLE
\usepackage[hidelinks]{hyperref}
\usepackage{multicol}
\usepackage{fancyhdr}
\pagestyle{fancy}\fancyhf{}\renewcommand{\headrulewidth}{0pt}
\begin{document}\raggedright
CONTENT
\end{document}
"""


def tex(program: str, cv: CV, target: Path) -> None:
    """Write by a program of TeX, with minipages and the headers of fancyhdr."""

    def raw(text: str) -> str:
        return text.replace("_", r"\_").replace("&", r"\&")

    values = r"\\".join(raw(value) for _, value in cv.contact)
    row = r" \textbullet{} ".join(raw(value) for _, value in cv.contact)
    body = "".join(rf"\section*{{{heading}}}" + r"\\".join(map(raw, lines)) for heading, lines in cv.body)
    name = rf"{{\Huge\bfseries {raw(cv.name)}}}\par "
    column = r"\begin{minipage}[t]{%s\textwidth}\raggedright %s\end{minipage}"
    content = {
        "sidebar": column % ("0.34", rf"\section*{{Contact}}{values}") + column % ("0.65", name + body),
        "right": column % ("0.65", name + body) + column % ("0.34", rf"\section*{{Contact}}{values}"),
        "header": rf"\chead{{{raw(cv.name)} {row}}}{body}",
        "footer": rf"\cfoot{{{row}}}{name}{body}",
        "link": rf"{name}\href{{mailto:{cv.email}}}{{Email}} | {raw(cv.phone)}\par {body}",
    }.get(cv.layout, f"{name}{row}\n\n{body}")
    preamble = r"\usepackage{fontspec}\setmainfont{DejaVu Sans}"
    if program == "pdflatex":
        # Some without an encoded font, which draws accents separately from their letters.
        preamble = r"\usepackage[utf8]{inputenc}" + (r"\usepackage[T1]{fontenc}" if cv.referee else "")
    source = target.with_suffix(".tex")
    source.write_text(_TEX.replace("PREAMBLE", preamble).replace("CONTENT", content))
    run(program, "-interaction=batchmode", "-halt-on-error", source.name, cwd=target.parent)


def groff(cv: CV, target: Path) -> None:
    """Write with the ms macros of troff."""
    values = "\n.br\n".join(value for _, value in cv.contact)
    body = "".join(f".SH\n{heading}\n.LP\n" + "\n.br\n".join(lines) + "\n" for heading, lines in cv.body)
    row = " ".join(value for _, value in cv.contact)
    if cv.layout == "header":
        content = f'.ds LH "{cv.name} {row}\n.ds CH\n.P1\n{body}'
    elif cv.layout == "footer":
        content = f'.ds LF "{row}\n.TL\n{cv.name}\n{body}'
    else:
        content = f".TL\n{cv.name}\n.LP\n{values}\n{body}"
    run("groff", "-k", "-Tpdf", "-ms", "-P-pa4", data=content, target=target)


def fop(cv: CV, target: Path) -> None:
    """Write by Apache FOP, from formatting objects with separate regions for header and footer."""

    def block(text: str, size: int = 9) -> str:
        return f'<fo:block font-size="{size}pt">{html.escape(text)}</fo:block>'

    def row(*cells: str) -> str:
        return "<fo:table-row>{}</fo:table-row>".format(
            "".join(f"<fo:table-cell>{block(cell)}</fo:table-cell>" for cell in cells)
        )

    values = "".join(block(value) for _, value in cv.contact)
    body = "".join(block(heading, 13) + "".join(map(block, lines)) for heading, lines in cv.body)
    name = block(cv.name, 24)
    rows = "".join(row(*pair) for pair in cv.contact)
    box = (
        '<fo:block-container absolute-position="absolute" left="12cm" width="6cm">'
        f"{values}</fo:block-container>"
    )
    content = {
        "header": body,
        "footer": name + body,
        "box": name + body + box,
        "table": f"{name}<fo:table><fo:table-body>{rows}</fo:table-body></fo:table>{body}",
    }.get(cv.layout, name + values + body)
    region, static = {"header": ("before", name + values), "footer": ("after", values)}.get(
        cv.layout, ("before", "")
    )
    source = target.with_suffix(".fo")
    source.write_text(
        '<fo:root xmlns:fo="http://www.w3.org/1999/XSL/Format" font-family="DejaVu Sans">'
        "<fo:layout-master-set>"
        '<fo:simple-page-master master-name="p" page-height="29.7cm" page-width="21cm" margin="1cm">'
        '<fo:region-body margin="2.5cm 0 2.5cm 0"/><fo:region-before extent="2.5cm"/>'
        '<fo:region-after extent="2.5cm"/></fo:simple-page-master></fo:layout-master-set>'
        '<fo:page-sequence master-reference="p">'
        f'<fo:static-content flow-name="xsl-region-{region}">{static or block("")}</fo:static-content>'
        f'<fo:flow flow-name="xsl-region-body">{content}</fo:flow></fo:page-sequence></fo:root>'
    )
    config = target.with_suffix(".xconf")
    config.write_text(
        '<fop version="1.0"><renderers><renderer mime="application/pdf"><fonts>'
        f'<font embed-url="{FONT.as_uri()}"><font-triplet name="DejaVu Sans" style="normal" weight="normal"/>'
        "</font></fonts></renderer></renderers></fop>"
    )
    run("fop", "-q", "-c", config, "-fo", source, "-pdf", target)
