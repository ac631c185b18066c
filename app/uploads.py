"""Receiving CVs: a bounded body, kinds told by content, and nothing left behind when one is refused."""

import os
import shutil
import uuid
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.batches import NewCV

MAX_FILES = 100  # CVs in one upload
NAME_LENGTH = 255  # characters of a file's name that are kept
TEXT_SAMPLE = 65_536  # bytes looked at to tell text from binary


class Refused(Exception):
    """The upload can't be taken; `status` is the HTTP status, the text is for the person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def kind_of(file: BinaryIO) -> str | None:
    """Return 'pdf', 'docx' or 'text' by the file's content, or None for anything else."""
    file.seek(0)
    head = file.read(TEXT_SAMPLE)
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(file) as archive:
                return "docx" if "word/document.xml" in archive.namelist() else None
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
            return None
    if b"\0" in head:
        return None
    try:
        # A character may be cut at the sample's end.
        head.decode("utf-8") if len(head) < TEXT_SAMPLE else head[:-3].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return None
    return "text" if head.strip() else None


async def receive(request: Request, limit: int) -> list[UploadFile]:
    """Return the files of a multipart body of at most `limit` bytes; each lies in an unlinked temporary file.

    Raises Refused for a body that is too large, is no form, or holds no file.
    """
    too_large = Refused(413, f"The upload is larger than {limit // 2**20} MB; send fewer or smaller files.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "Send the CVs as multipart/form-data in the field `files`.")

    async def bounded() -> AsyncIterator[bytes]:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise too_large
            yield chunk

    parser = MultiPartParser(request.headers, bounded(), max_files=MAX_FILES, max_fields=10)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Refused(400, f"The form can't be read: {getattr(error, 'message', error)}") from error
    except BaseException:
        for file in parser._files_to_close_on_error:
            file.close()
        raise
    files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
    if not files:
        await form.close()
        raise Refused(422, "There is no file in the field `files`.")
    return files


def name_of(file: UploadFile) -> str:
    """Return the file's name as data for people: no folders, no control characters, never a path."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char for char in name if char.isprintable())[:NAME_LENGTH] or "unnamed"


def store(files: list[UploadFile], folder: Path) -> list[NewCV]:
    """Copy the files under generated ids into `folder` and return them.

    Raises Refused naming each file that is no CV, and OSError; in both cases nothing is left behind.
    """
    kinds = [kind_of(file.file) for file in files]
    wrong = [
        f"{name_of(file)} is {'empty' if file.size == 0 else 'neither PDF, Word (.docx) nor plain text'}"
        for file, kind in zip(files, kinds, strict=True)
        if kind is None
    ]
    if wrong:
        raise Refused(415, f"{'; '.join(wrong)}. Nothing of this upload was taken.")
    new: list[NewCV] = []
    try:
        for file, kind in zip(files, kinds, strict=True):
            assert kind is not None
            cv = NewCV(uuid.uuid4().hex, name_of(file), file.size or 0, kind)
            new.append(cv)
            file.file.seek(0)
            with (folder / cv.cv_id).open("xb") as target:
                shutil.copyfileobj(file.file, target)
                target.flush()
                os.fsync(target.fileno())
    except BaseException:
        discard(new, folder)
        raise
    return new


def discard(new: list[NewCV], folder: Path) -> None:
    """Remove what `store` stored."""
    for cv in new:
        (folder / cv.cv_id).unlink(missing_ok=True)
