"""The edge's cache and its compression: what the zone's rules decide about an answer on its way."""

from __future__ import annotations

import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = list[tuple[bytes, bytes]]

# What Cloudflare caches with no rule for it, by the ending of the path. HTML and JSON are not among them.
STATIC = {
    "7z", "avi", "avif", "apk", "bin", "bmp", "bz2", "class", "css", "csv", "doc", "docx", "dmg", "ejs",
    "eot", "eps", "exe", "flac", "gif", "gz", "ico", "iso", "jar", "jpeg", "jpg", "js", "mid", "midi",
    "mkv", "mp3", "mp4",
    "ogg", "otf", "pdf", "pict", "pls", "png", "ppt", "pptx", "ps", "rar", "svg", "svgz", "swf", "tar",
    "tif", "tiff", "ttf", "webm", "webp", "woff", "woff2", "xls", "xlsx", "zip", "zst",
}  # fmt: skip
# Of an answer that says nothing of its age, by its status (Cloudflare's page "Cache by status code").
# A part (206) is not kept here.
DEFAULT_SECONDS = {200: 7200, 301: 7200, 302: 1200, 303: 1200, 404: 180, 410: 180}
LARGEST = 8_000_000  # bytes of a body that is kept
MOST = 500  # answers
COMPRESSIBLE = re.compile(
    rb"text/(html|css|plain|javascript|xml|markdown|csv)|image/svg\+xml"
    rb"|application/(javascript|json|xml|manifest\+json|wasm|xhtml\+xml)"
)
SMALLEST = 48  # bytes, below which gzip is not worth it


@dataclass
class Entry:
    """A kept answer."""

    status: int
    reason: bytes
    headers: Headers
    body: bytes
    stored: float
    fresh_for: float


@dataclass
class Cache:
    """Answers by what asked for them, the longest unused dropped first."""

    entries: OrderedDict[tuple[str, ...], Entry] = field(default_factory=OrderedDict)

    def find(self, key: tuple[str, ...]) -> tuple[str, Entry | None]:
        """Return HIT and the answer; or EXPIRED or MISS, and None."""
        entry = self.entries.get(key)
        if entry is None:
            return "MISS", None
        if time.monotonic() - entry.stored >= entry.fresh_for:
            del self.entries[key]
            return "EXPIRED", None
        self.entries.move_to_end(key)
        return "HIT", entry

    def store(self, key: tuple[str, ...], entry: Entry) -> None:
        """Keep an answer."""
        self.entries[key] = entry
        while len(self.entries) > MOST:
            self.entries.popitem(last=False)


def eligible(path: str, settings: Mapping[str, Any]) -> bool:
    """Tell whether answers for a path may be cached: by the rules that match, else by its ending."""
    if "cache" in settings:
        return bool(settings["cache"])
    return path.rpartition("/")[2].rpartition(".")[2].lower() in STATIC


def lifetime(status: int, headers: Iterable[tuple[bytes, bytes]], settings: Mapping[str, Any]) -> float:
    """Return for how many seconds an answer is fresh; 0 for one that must not be kept."""
    fields = {name.lower(): value.decode("latin-1").lower() for name, value in headers}
    if status not in DEFAULT_SECONDS or b"set-cookie" in fields or fields.get(b"vary", "").strip() == "*":
        return 0
    ttl = settings.get("edge_ttl", {})
    if ttl.get("mode") == "override_origin":
        return float(ttl.get("default", 0))
    control = dict(
        (word.strip().partition("=")[0], word.strip().partition("=")[2].strip('"'))
        for word in fields.get(b"cache-control", "").split(",")
        if word.strip()
    )
    if control.keys() & {"private", "no-store", "no-cache"}:
        return 0
    for key in ("s-maxage", "max-age"):
        if control.get(key, "").isdecimal():
            return float(control[key])
    return 0 if ttl.get("mode") == "bypass_by_default" else DEFAULT_SECONDS[status]


def algorithm(accepts: str, settings: Mapping[str, Any]) -> str:
    """Return gzip where the visitor takes it and the rules want it, else none.

    Cloudflare also speaks brotli and zstd; a rule that names only those leaves an answer as it is here.
    """
    names = [item["name"] for item in settings.get("algorithms", [{"name": "default"}])]
    taken = {word.partition(";")[0].strip().lower() for word in accepts.split(",")}
    for name in names:
        if name == "none":
            return "none"
        if name in ("gzip", "auto", "default") and taken & {"gzip", "*"}:
            return "gzip"
    return "none"


class Compressor:
    """Compresses an answer, or opens one that the origin compressed, as it streams by."""

    def __init__(self, opens: bool) -> None:
        self._opens = opens
        self._flow: Any = zlib.decompressobj(wbits=31) if opens else zlib.compressobj(wbits=31)

    @classmethod
    def for_response(cls, wanted: str, headers: Headers) -> Compressor | None:
        """Return what an answer needs to come as `wanted`, gzip or none; None for one that stays as it is."""
        fields = {name.lower(): value.lower() for name, value in headers}
        encoding = fields.get(b"content-encoding", b"identity")
        if b"no-transform" in fields.get(b"cache-control", b""):
            return None
        if encoding == b"gzip" and wanted == "none":
            return cls(opens=True)
        small = fields.get(b"content-length", b"").isdigit() and int(fields[b"content-length"]) < SMALLEST
        kind = fields.get(b"content-type", b"").partition(b";")[0].strip()
        if encoding == b"identity" and wanted == "gzip" and COMPRESSIBLE.fullmatch(kind) and not small:
            return cls(opens=False)
        return None

    def headers(self, headers: Headers) -> Headers:
        """Return the answer's headers as they must be for what comes out."""
        dropped = (b"content-length", b"content-encoding", b"etag", b"accept-ranges")
        kept = [header for header in headers if header[0].lower() not in dropped]
        for name, value in headers:
            if name.lower() == b"etag":
                kept.append((name, value if value.startswith(b"W/") else b"W/" + value))
        if not self._opens:
            kept.append((b"Content-Encoding", b"gzip"))
        return [*kept, (b"Vary", b"accept-encoding")]

    def feed(self, data: bytes) -> bytes:
        """Take the next piece and return what is ready; nothing is held back. Raises zlib.error."""
        if self._opens:
            return bytes(self._flow.decompress(data))
        return bytes(self._flow.compress(data) + self._flow.flush(zlib.Z_SYNC_FLUSH)) if data else b""

    def finish(self) -> bytes:
        """Return what is left at the end."""
        return bytes(self._flow.flush())
