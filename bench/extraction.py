"""Name, email and phone read from CVs of many programs: by app/extract, and from the text of a plain loop."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import phonenumbers

from app.contact import contact
from app.extract import client
from bench.cvs import CV, draw, page, placed
from bench.figures import Figure
from bench.traits import TRAITS
from bench.typeset import FONT
from bench.writers import WRITERS, Writer
from tests.kit.app import shared_extractor

FIELDS = ("name", "email", "phone")
FILES = 6  # of each writer
REGION = "GB"
WORKERS = 2


@dataclass(frozen=True)
class Read:
    """One file and what a reader made of it: for each field right, wrong or missing."""

    writer: str
    real: bool
    reader: str
    cv: CV
    outcome: dict[str, str]
    found: dict[str, str | None]


@dataclass(frozen=True)
class Report:
    """The outcome of all files, the writers that are missing, and the files that they failed to write."""

    reads: list[Read]
    missing: list[str]
    failed: list[str]


def _ours(kind: str, path: Path) -> str:
    return client.text(shared_extractor().socket, kind, path)[0]


def _plain(kind: str, path: Path) -> str:
    """Read as the documentation of pypdf and of python-docx begins: page by page, paragraph by paragraph."""
    if kind == "pdf":
        pages = importlib.import_module("pypdf").PdfReader(path).pages
        return "\n".join(page.extract_text() for page in pages)
    document: Any = importlib.import_module("docx").Document(str(path))
    return "\n".join(paragraph.text for paragraph in document.paragraphs)


READERS: dict[str, Callable[[str, Path], str]] = {"ours": _ours, "plain": _plain}


def _same(field: str, found: str | None, wanted: str) -> bool:
    if found is None:
        return False
    if field == "phone":
        parsed = phonenumbers.parse(wanted, None)
        return phonenumbers.is_number_match(parsed, found) == phonenumbers.MatchType.EXACT_MATCH
    return found.casefold().replace("\u2019", "'") == wanted.casefold()


def _read(writer: str, real: bool, reader: str, cv: CV, path: Path) -> Read:
    try:
        text = READERS[reader](path.suffix[1:], path)
    except Exception as error:  # refused, and the plain loop fails with errors of all kinds
        print(f"{writer}: the {reader} reader: {error}", file=sys.stderr)
        text = ""
    found = contact(text, REGION)
    outcome = {
        field: "right"
        if _same(field, found[field], getattr(cv, field))
        else "wrong"
        if found[field]
        else "missing"
        for field in FIELDS
    }
    return Read(writer, real, reader, cv, outcome, found)


def _cvs(writer: Writer) -> list[CV]:
    cvs = draw(f"{writer.name}{writer.suffix}", writer.layouts, 14)
    # Without fonts that few installations have, the page itself lacks the other letters.
    last = {"pdfTeX": "\u024f", "groff": "\xff"}.get(writer.name, chr(sys.maxunicode))
    cvs = [cv for cv in cvs if max(cv.name + cv.city) <= last]
    return cvs[:FILES]


def _write(writer: Writer, folder: Path) -> Iterator[tuple[CV, Path, str]]:
    """Write a writer's CVs; yield each with its file and an error, if it could not be written."""
    cvs = _cvs(writer)
    paths = [folder / f"{index}{writer.suffix}" for index in range(len(cvs))]
    errors: dict[int, str] = {}
    if writer.write is None:
        jobs = [
            {"writer": writer.needs, "target": str(path), "html": page(cv),
             "placed": [asdict(item) for item in placed(cv)],
             "cv": asdict(cv) | {"contact": cv.contact, "body": cv.body}}
            for cv, path in zip(cvs, paths, strict=True)
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603
            ["node", str(Path(__file__).with_name("writers.cjs")), str(FONT)],  # noqa: S607
            input=json.dumps(jobs), capture_output=True, text=True, timeout=300, check=False, env=os.environ,
        )  # fmt: skip
        errors = dict.fromkeys(range(len(cvs)), (done.stdout or done.stderr).strip()[-200:])
    for index, (cv, path) in enumerate(zip(cvs, paths, strict=True)):
        if writer.write is not None:
            try:
                writer.write(cv, path)
            except Exception as error:  # each library has its own
                errors[index] = str(error)
        yield cv, path, "" if path.exists() else errors.get(index, "") or "no file"


def run() -> Report:
    """Write the CVs with every writer that is installed, and read each twice."""
    there = [writer for writer in WRITERS if writer.is_there()]
    missing = [f"{writer.name} ({writer.needs})" for writer in WRITERS if writer not in there]
    reads: list[Read] = []
    failed: list[str] = []
    shared_extractor()  # here, because a child process ends with the thread that started it

    with tempfile.TemporaryDirectory() as folder:

        def one(number: int) -> None:
            writer = there[number]
            own = Path(folder, str(number))
            own.mkdir()
            name = f"{writer.name} {writer.suffix[1:].upper()}"
            for cv, path, error in _write(writer, own):
                if error:
                    failed.append(f"{name}, {cv.layout}, {cv.name}: {error}")
                else:
                    reads.extend(_read(name, True, reader, cv, path) for reader in READERS)
            print(f"{name}: done", file=sys.stderr)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(one, range(len(there))))
        if any(writer.name == "ReportLab" for writer in there):
            for number, (name, suffix, write) in enumerate(TRAITS):
                for cv in draw(name, ["block", "sidebar"], 2):
                    path = Path(folder, f"trait{number}{cv.layout}{suffix}")
                    write(cv, path)
                    reads.extend(_read(name, False, reader, cv, path) for reader in READERS)
    order = [f"{writer.name} {writer.suffix[1:].upper()}" for writer in WRITERS] + [
        trait[0] for trait in TRAITS
    ]
    return Report(sorted(reads, key=lambda read: order.index(read.writer)), missing, failed)


def _cells(reads: list[Read]) -> list[str]:
    """Return right and wrong values of each field, by reader."""
    cells = []
    for field in FIELDS:
        for reader in READERS:
            count = Counter(read.outcome[field] for read in reads if read.reader == reader)
            cells.append(f"{count['right']}" + (f" ({count['wrong']} wrong)" if count["wrong"] else ""))
    return cells


def table(report: Report) -> str:
    """Return the table by writer, and what stays unread."""
    head = [f"{field}, {reader}" for field in FIELDS for reader in READERS]
    rows = [["writer", "files", *head], ["---", *["---:"] * (1 + len(head))]]
    for real in (True, False):
        group = [read for read in report.reads if read.real is real]
        for writer in dict.fromkeys(read.writer for read in group):
            reads = [read for read in group if read.writer == writer]
            rows.append([writer, str(len(reads) // len(READERS)), *_cells(reads)])
        label = "**all that run here**" if real else "**all with known traits**"
        rows.append([label, str(len(group) // len(READERS)), *_cells(group)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for read in report.reads:
        for field, outcome in read.outcome.items():
            if read.reader == "ours" and outcome != "right":
                found = f": {read.found[field]!r}" if outcome == "wrong" else ""
                lines.append(f"{outcome}: {getattr(read.cv, field)} ({read.writer}, {read.cv.layout}){found}")
    lines += [f"not written: {each}" for each in report.failed]
    lines += [f"not installed: {each}" for each in report.missing]
    return "\n".join(lines)


def figures(report: Report) -> list[Figure]:
    """Return recall and wrong values of each field and reader; ours may return no wrong name or email."""
    found = []
    for reader in READERS:
        reads = [read for read in report.reads if read.real and read.reader == reader]
        found.append(Figure(f"files, {reader}", len(reads)))
        for field in FIELDS:
            count = Counter(read.outcome[field] for read in reads)
            found.append(Figure(f"{field} recall, {reader}", count["right"] / max(1, len(reads))))
            limit = 0 if reader == "ours" and field != "phone" else None
            found.append(Figure(f"{field} wrong, {reader}", count["wrong"], "files", limit))
    return found
