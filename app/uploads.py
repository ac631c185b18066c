"""Receives CVs: streams a multipart body to disk, and detects the kind of each file from its content."""

import os
import re
import struct
import zipfile
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from contextlib import ExitStack
from email.message import Message
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException, Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.settings import FILES_LIMIT

FIELD = "files"
NAME_LIMIT = 255  # characters of a file name; the rest is cut off
DIRECTORY_LIMIT = 1 << 20  # bytes of a ZIP archive's central directory; a DOCX needs a few thousand
CHUNK = 1 << 16  # bytes per read

_NAMED = {".pdf": "PDF", ".docx": "DOCX", ".txt": "plain text"}
_MAIN_PART = re.compile(r"word/document\d*\.xml")  # Word on the web numbers it
_NOT_PLAIN = (b"{\\rtf", b"<!doctype", b"<html", b"<?xml", b"%!PS")


class Upload:
    """One received file without a name on disk, which the kernel deletes unless `keep` links it."""

    def __init__(self, filename: str, folder: Path) -> None:
        # For display only, never used as a path.
        name = filename.replace("\\", "/").rpartition("/")[2]
        self.filename = "".join(filter(str.isprintable, name))[:NAME_LIMIT]
        self.size = 0
        # Unnamed, so that even a killed process leaves nothing behind; unbuffered, so that a full disk fails
        # in `write` and not later.
        self.file = FileIO(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), "w+b")

    def write(self, data: bytes) -> None:
        """Append to the file. Raises OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.file.write(rest) :]
        self.size += len(data)

    def keep(self, path: Path) -> None:
        """Sync the file to disk, then link it at `path`. Raises OSError."""
        os.fsync(self.file.fileno())
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Python follows the link in /proc only with a directory descriptor.
            os.link(f"/proc/self/fd/{self.file.fileno()}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)


class _Form:
    """Parses a multipart body and writes its files, in no more memory than a chunk takes."""

    def __init__(self, boundary: bytes, folder: Path, files: ExitStack) -> None:
        self.uploads: list[Upload] = []
        self._folder = folder
        self._files = files
        self._name, self._value = b"", b""
        self._disposition = b""
        self._current: Upload | None = None
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> list[Upload]:
        self._parser.finalize()
        if not self._complete:
            raise FormParserError("the closing boundary is missing")
        # Browsers send an empty file field as a file without name and content.
        return [upload for upload in self.uploads if upload.filename or upload.size]

    def _part_begin(self) -> None:
        self._disposition = b""
        self._current = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = _filename(self._disposition, options)
        if filename is None:
            return  # an ordinary form field, which is ignored
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise HTTPException(
                422, f"The form has a file in the field {field!r}; send each CV as {FIELD!r}."
            )
        if len(self.uploads) == FILES_LIMIT:
            raise HTTPException(422, f"More than {FILES_LIMIT} files in one upload; upload fewer at a time.")
        self._current = Upload(filename, self._folder)
        self._files.callback(self._current.file.close)
        self.uploads.append(self._current)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current:
            self._current.write(data[start:end])

    def _end(self) -> None:
        self._complete = True


def _filename(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    """Return a part's filename, None for a part that is not a file."""
    if b"filename" in options:
        return options[b"filename"].decode("utf-8", "replace")
    if b"*=" not in disposition:
        return None
    # RFC 7578 forbids `filename*`, so the parser skips it, yet some clients send nothing else.
    message = Message()
    message["Content-Disposition"] = disposition.decode("latin-1")
    return message.get_filename()


async def receive(request: Request, folder: Path, limit: int, files: ExitStack) -> list[Upload]:
    """Return the files of a multipart body, at least one. Each stays open until `files` closes.

    Raises HTTPException: 413 above `limit` bytes of body, 400 for an incomplete or malformed body, 415 for
    another content type, 422 without files, 507 when the disk is full.
    """
    too_large = HTTPException(
        413, f"The upload is larger than {limit / 2**20:.3g} MiB; upload fewer files at a time."
    )
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(415, f"Send the CVs as multipart/form-data, each file as {FIELD!r}.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    try:
        form = _Form(options[b"boundary"], folder, files)
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise too_large
            await run_in_threadpool(form.write, chunk)
        uploads = form.finish()
    except FormParserError as error:
        raise HTTPException(400, f"The upload is not a complete multipart form ({error}).") from error
    except ClientDisconnect:
        raise HTTPException(400, "The upload was interrupted; nothing was stored.") from None
    except OSError as error:
        raise disk_full(error) from error
    if not uploads:
        raise HTTPException(422, f"The form has no file; send each CV as {FIELD!r}.")
    return uploads


def disk_full(error: OSError) -> HTTPException:
    """Return the response to an upload that can't be written to disk."""
    return HTTPException(507, f"The server can't store the upload ({error.strerror}); try again later.")


def kinds(uploads: list[Upload]) -> list[str]:
    """Return each file's kind: pdf, docx or text. Raises HTTPException 422, which names all other files."""
    found: list[str] = []
    refused: list[str] = []
    for upload in uploads:
        kind, reason = _kind(upload)
        found.append(kind)
        if reason:
            refused.append(f"{upload.filename or 'a file without a name'} {reason}")
    if refused:
        raise HTTPException(
            422, f"Nothing was stored: {'; '.join(refused)}. Upload CVs as PDF, DOCX or plain text."
        )
    return found


def _kind(upload: Upload) -> tuple[str, str]:
    """Return the kind and no reason, or no kind and the reason to refuse the file."""
    if upload.size == 0:
        return "", "is empty"
    upload.file.seek(0)
    head = upload.file.read(1024)
    kind = ""
    if b"%PDF-" in head:  # readers accept some bytes before it
        kind = "pdf"
    elif head.startswith(b"PK\x03\x04"):
        if not _is_docx(upload.file):
            return "", "is a ZIP archive or another Office file, not a DOCX"
        kind = "docx"
    elif _is_text(upload.file):
        kind = "text"
    expected = _NAMED.get(Path(upload.filename).suffix.lower())
    if not kind:
        return (
            "",
            f"is named as {expected} but its content is not" if expected else "is not a supported document",
        )
    actual = {"pdf": "PDF", "docx": "DOCX", "text": "plain text"}[kind]
    if expected and expected != actual:
        return "", f"is named as {expected} but its content is {actual}"
    return kind, ""


def _is_docx(file: BinaryIO) -> bool:
    """Return whether an archive's central directory has a Word document's parts, without unpacking them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - CHUNK - 22))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        return False
    length, offset = struct.unpack("<II", tail[end + 12 : end + 20])
    # zipfile uses the same numbers; those of a ZIP64 archive exceed both limits.
    if length > DIRECTORY_LIMIT or offset + length > size:
        return False
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.replace("\\", "/").lower() for name in archive.namelist()}
            return "[content_types].xml" in names and any(map(_MAIN_PART.fullmatch, names))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _is_text(file: BinaryIO) -> bool:
    """Return whether the whole file is text: UTF-8, UTF-16 with a byte order mark, or an older encoding."""
    file.seek(0)
    head = file.read(16)
    if head.removeprefix(BOM_UTF8).lstrip().lower().startswith(_NOT_PLAIN):
        return False
    encodings = ["utf-16"] if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else ["utf-8-sig", "latin-1"]
    for encoding in encodings:
        decoder = getincrementaldecoder(encoding)()
        file.seek(0)
        seen = False
        try:
            while chunk := file.read(CHUNK):
                text = decoder.decode(chunk)
                if any(c < " " and c not in "\t\n\r\f" for c in text):
                    return False
                seen = seen or not text.isspace()
            decoder.decode(b"", final=True)
            return seen
        except UnicodeDecodeError:
            continue
    return False
