"""CVs as bytes, and what is read from them in a separate process, as in the worker."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
from docx.document import Document

from app.analyse import analyse
from app.extract import client
from tests.kit.app import shared_extractor

NAME = "Ada Lovelace"
EMAIL = "ada.lovelace@example.com"
PHONE = "+44 20 7946 0018"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def read(kind: str, data: bytes, folder: Path) -> str:
    """Return a file's text. Raises Refused with the message for the user."""
    path = folder / "cv"
    path.write_bytes(data)
    return client.text(shared_extractor().socket, kind, path)[0]


def found(kind: str, data: bytes, folder: Path) -> tuple[str | None, str | None, str | None]:
    """Return the name, email and phone that are read from a file."""
    result: dict[str, Any] = analyse(read(kind, data, folder), "GB")
    return result["name"], result["email"], result["phone"]


def saved(document: Document) -> bytes:
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()


def word(*lines: str) -> bytes:
    document = docx.Document()
    for line in lines:
        document.add_paragraph(line)
    return saved(document)


def word_with(body: str) -> bytes:
    """Return a document whose body begins with WordprocessingML."""
    return changed(word(), {"word/document.xml": lambda xml: xml.replace("<w:body>", f"<w:body>{body}")})


def changed(data: bytes, changes: dict[str, Callable[[str], str]]) -> bytes:
    """Return an archive in which parts are rewritten, or added when they begin as nothing."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as archive:
        for part in dict.fromkeys([*source.namelist(), *changes]):
            content = source.read(part) if part in source.namelist() else b""
            change = changes.get(part)
            archive.writestr(part, change(content.decode()) if change else content)
    return target.getvalue()
