"""DOCX: an archive of XML parts, of which a page shows the body, headers, footers and notes."""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

from app.extract import BREAK, TOO_MUCH, Refused, mail_address

XML_LIMIT = 20 << 20  # bytes that a DOCX's text may unpack to; images are never unpacked
PARTS_LIMIT = 2_000
COLUMN_LINES = 5  # of a table's cell, above which it is a column of the page, and the next cell another
# WordprocessingML and DrawingML, each in its transitional and its strict form.
_NAMESPACES = {
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main": "w",
    "http://purl.oclc.org/ooxml/wordprocessingml/main": "w",
    "http://schemas.openxmlformats.org/drawingml/2006/main": "a",
    "http://purl.oclc.org/ooxml/drawingml/main": "a",
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships": "r",
    "http://purl.oclc.org/ooxml/officeDocument/relationships": "r",
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc",
    "http://schemas.openxmlformats.org/package/2006/relationships": "rel",
}
# Not on the page: copies for older programs, tracked deletions, earlier formatting, pronunciation.
_UNSEEN = {"mc:Fallback", "w:del", "w:moveFrom", "w:rPrChange", "w:pPrChange", "w:sectPrChange", "w:rt"}
_CHARACTERS = {"w:tab": "\t", "w:ptab": "\t", "w:br": "\n", "w:cr": "\n", "a:br": "\n"}
_CHARACTERS["w:noBreakHyphen"] = "-"
_FALSE = {"0", "false", "off"}


class _Package:
    """The parts of an Office file and the relationships between them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        # Names of parts are compared without regard to case; some programs write them with backslashes.
        self._names = {name.replace("\\", "/").lower(): name for name in archive.namelist()}

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._names

    def parse(self, part: str, handler: "_Handler") -> None:
        """Send a part's elements to `handler`. Raises ExpatError, ValueError, zipfile.BadZipFile."""
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = handler.start
        parser.EndElementHandler = handler.end
        parser.CharacterDataHandler = handler.data
        parser.StartDoctypeDeclHandler = _refuse_doctype
        with self._archive.open(self._names[part.lower()]) as file:
            parser.ParseFile(file)

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """Return a part's relationships: id to type, without its address, and target: a part or a link.

        Those whose part does not exist are left out: Word itself writes some, with targets such as NULL.
        """
        folder, name = posixpath.split(part)
        handler = _Relationships()
        source = posixpath.join(folder, "_rels", f"{name}.rels")
        if source in self:
            self.parse(source, handler)
        found = {}
        for key, kind, target, external in handler.found:
            if not external:
                target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            if external or target in self:
                found[key] = (kind.rpartition("/")[2], target)
        return found


def _refuse_doctype(*_: object) -> None:
    raise ValueError("an Office file declares a document type")


class _Handler:
    """Receives a part's elements; names and attributes have the prefixes of _NAMESPACES."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle an element's start."""

    def end(self, name: str) -> None:
        """Handle an element's end."""

    def data(self, text: str) -> None:
        """Handle text."""


def _prefixed(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    return f"{_NAMESPACES.get(namespace, '')}:{local}"


class _Relationships(_Handler):
    def __init__(self) -> None:
        self.found: list[tuple[str, str, str, bool]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if _prefixed(name) == "rel:Relationship":
            external = attributes.get("TargetMode") == "External"
            self.found.append(
                (attributes.get("Id", ""), attributes.get("Type", ""), attributes.get("Target", ""), external)
            )


class _EvenPages(_Handler):
    """Reads from the settings whether even pages have their own headers."""

    found = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if _prefixed(name) == "w:evenAndOddHeaders":
            self.found = _on({_prefixed(key): value for key, value in attributes.items()})


def _on(attributes: dict[str, str]) -> bool:
    return attributes.get("w:val", "1").lower() not in _FALSE


class _Paragraph:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.links: list[str] = []
        self.framed = False


class _Text(_Handler):
    """Collects what a part shows on the page, paragraph by paragraph, and which headers its sections have."""

    def __init__(self, links: dict[str, tuple[str, str]]) -> None:
        self.paragraphs: list[str] = []
        self.boxes: list[list[str]] = []  # the paragraphs of each text box and frame
        self.sections: list[dict[tuple[str, str], str]] = [{}]
        self.diagrams: list[str] = []
        self._links = links
        self._path: list[str] = []
        self._open: list[_Paragraph] = []
        self._targets = [self.paragraphs]  # the last one is the current body or box
        self._rows: list[tuple[int, int]] = []  # per open row: the last cell's first paragraph, and how many
        self._in_frame = False  # whether the previous paragraph is
        self._unseen = 0  # depth of the element that hides everything in it, 0 for none
        self._placeholder = False  # whether the current content control shows its prompt
        self._hidden = False  # whether the current run is
        self._instruction = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        element = _prefixed(name)
        parent = self._path[-1] if self._path else ""
        self._path.append(element)
        if self._unseen:
            return
        if element in _UNSEEN or (element == "w:sdtContent" and self._placeholder):
            self._unseen = len(self._path)
            self._placeholder = False
            return
        if element in ("w:p", "a:p"):
            self._open.append(_Paragraph())
        elif element == "w:tr":
            self._rows.append((0, 0))
        elif element == "w:tc":
            if self._rows[-1][1] > COLUMN_LINES:
                self._targets[-1].append(BREAK)
            self._rows[-1] = (len(self._targets[-1]), 0)
        elif element == "w:txbxContent":
            self.boxes.append([])
            self._targets.append(self.boxes[-1])
        elif element in ("w:sdt", "w:sdtContent"):
            self._placeholder = False
        elif element == "w:r":
            self._hidden = False
        elif element in _CHARACTERS and parent in ("w:r", "a:p"):
            self._add(_CHARACTERS[element])
        elif attributes:
            self._attributes(element, {_prefixed(key): value for key, value in attributes.items()})
        else:
            self._attributes(element, {})

    def _attributes(self, element: str, attributes: dict[str, str]) -> None:
        if element == "w:vanish" and self._path[-3:-1] == ["w:r", "w:rPr"]:
            self._hidden = _on(attributes)
        elif element == "w:framePr" and self._open:
            self._open[-1].framed = "w:dropCap" not in attributes
        elif element == "w:showingPlcHdr":
            self._placeholder = _on(attributes)
        elif element == "w:hyperlink" and self._open:
            _, target = self._links.get(attributes.get("r:id", ""), ("", ""))
            self._link(target)
        elif element in ("w:headerReference", "w:footerReference"):
            which = (element, attributes.get("w:type", "default"))
            self.sections[-1][which] = attributes.get("r:id", "")
        elif element == "w:titlePg" and _on(attributes):
            self.sections[-1]["w:titlePg", ""] = ""
        elif element == ":relIds" and "r:dm" in attributes:
            self.diagrams.append(attributes["r:dm"])

    def _link(self, target: str) -> None:
        address = mail_address(target)
        if address and self._open:
            self._open[-1].links.append(address)

    def _add(self, text: str) -> None:
        if self._open and not self._hidden:
            self._open[-1].pieces.append(text)

    def data(self, text: str) -> None:
        if self._unseen:
            return
        if self._path[-1] in ("w:t", "a:t"):
            self._add(text)
        elif self._path[-1] == "w:instrText" and "mailto:" in text and self._open:
            self._link(text[text.index("mailto:") :])

    def end(self, name: str) -> None:
        element = self._path.pop()
        if self._unseen:
            if len(self._path) < self._unseen:
                self._unseen = 0
        elif element in ("w:p", "a:p"):
            paragraph = self._open.pop()
            text = "".join(paragraph.pieces)
            text = " ".join([text, *(link for link in paragraph.links if link not in text)])
            if paragraph.framed and not self._in_frame:
                self.boxes.append([])
            (self.boxes[-1] if paragraph.framed else self._targets[-1]).append(text)
            self._in_frame = paragraph.framed
        elif element == "w:tc":
            start = self._rows[-1][0]
            self._rows[-1] = (start, len(self._targets[-1]) - start)
        elif element == "w:tr":
            self._rows.pop()
        elif element == "w:txbxContent":
            self._targets.pop()
        elif element == "w:sectPr":
            self.sections.append({})


def read(file: BinaryIO) -> Iterator[str]:
    """Yield a Word document's text: page headers, body with tables, text boxes, notes, page footers.

    Templates, documents with macros and those in strict form are read as well. Raises Refused.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            xml = sum(part.file_size for part in parts if not part.filename.startswith("word/media/"))
            if len(parts) > PARTS_LIMIT or xml > XML_LIMIT:
                raise Refused(TOO_MUCH)
            yield from _stories(_Package(archive))
    except (Refused, MemoryError):
        raise
    # zipfile and expat raise errors of all kinds for broken files.
    except Exception as error:
        raise Refused(
            "The DOCX is damaged and can't be read. Save it again and upload the new file."
        ) from error


def _stories(package: _Package) -> Iterator[str]:
    roots = package.related("").values()
    main = next((part for kind, part in roots if kind == "officeDocument"), "word/document.xml")
    related = package.related(main)
    body = _Text(related)
    package.parse(main, body)
    even = _EvenPages()
    for kind, part in related.values():
        if kind == "settings":
            package.parse(part, even)
    parts = {key: part for key, (_, part) in related.items() if part in package}
    notes = [key for key, (kind, _) in related.items() if kind in ("footnotes", "endnotes")]
    headers = _used(body.sections, "w:headerReference", even.found)
    footers = _used(body.sections, "w:footerReference", even.found)
    order = [parts.get(key) for key in headers] + [main]
    order += [parts.get(key) for key in [*body.diagrams, *notes, *footers]]
    stories: list[list[str]] = []
    for part in filter(None, dict.fromkeys(order)):
        text = body
        if part != main:
            text = _Text(package.related(part))
            package.parse(part, text)
        stories += [text.paragraphs, *text.boxes]
    for number, story in enumerate(stories):
        if number:
            yield BREAK
        yield from story


def _used(sections: list[dict[tuple[str, str], str]], reference: str, even: bool) -> list[str]:
    """Return the ids of the headers or footers that the sections show, in the order of the pages."""
    found: list[str] = []
    inherited: dict[tuple[str, str], str] = {}
    for section in sections:
        inherited |= section
        kinds = (["first"] if ("w:titlePg", "") in section else []) + ["default"] + (["even"] if even else [])
        found += [inherited[reference, kind] for kind in kinds if (reference, kind) in inherited]
    return found
