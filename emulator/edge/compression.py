"""Compression of responses at the edge, according to Accept-Encoding and the zone's compression rules."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from emulator.edge.http import Headers, by_name, rewritten

COMPRESSIBLE = re.compile(
    rb"text/(html|css|plain|javascript|xml|markdown|csv)|image/svg\+xml"
    rb"|application/(javascript|json|xml|manifest\+json|wasm|xhtml\+xml)"
)
MIN_BYTES = 48  # shorter bodies are not compressed (Cloudflare's page "Content compression")


def negotiate(accept_encoding: str, settings: Mapping[str, Any]) -> str:
    """Return "gzip" where the visitor accepts it and the rules' parameters choose it, else "none".

    Cloudflare also has Brotli and Zstandard; a rule that names only those leaves a response unchanged here.
    """
    algorithms = [item["name"] for item in settings.get("algorithms", [{"name": "default"}])]
    accepted = {word.partition(";")[0].strip().lower() for word in accept_encoding.split(",")}
    for algorithm in algorithms:
        if algorithm == "none":
            return "none"
        if algorithm in ("gzip", "auto", "default") and accepted & {"gzip", "*"}:
            return "gzip"
    return "none"


class Compressor:
    """Compresses a response's body with gzip, or decompresses it, piece by piece."""

    def __init__(self, decompress: bool) -> None:
        self._decompress = decompress
        self._stream: Any = zlib.decompressobj(wbits=31) if decompress else zlib.compressobj(wbits=31)

    @classmethod
    def for_response(cls, encoding: str, headers: Headers) -> Compressor | None:
        """Return what turns a response into `encoding`, "gzip" or "none"; None where it stays as it is."""
        fields = by_name(headers)
        current = fields.get(b"content-encoding", b"identity").lower()
        if b"no-transform" in fields.get(b"cache-control", b"").lower():
            return None
        if current == b"gzip" and encoding == "none":
            return cls(decompress=True)
        length = fields.get(b"content-length", b"")
        too_short = length.isdigit() and int(length) < MIN_BYTES
        media_type = fields.get(b"content-type", b"").lower().partition(b";")[0].strip()
        if current != b"identity" or encoding != "gzip" or too_short:
            return None
        return cls(decompress=False) if COMPRESSIBLE.fullmatch(media_type) else None

    def headers(self, headers: Headers) -> Headers:
        """Return the response's headers as they must be for the new encoding."""
        kept = rewritten(headers, b"accept-ranges")
        if not self._decompress:
            kept.append((b"Content-Encoding", b"gzip"))
        return [*kept, (b"Vary", b"accept-encoding")]

    def feed(self, data: bytes) -> bytes:
        """Take the next piece and return all of it in the new encoding. Raises zlib.error."""
        if self._decompress:
            return bytes(self._stream.decompress(data))
        if not data:
            return b""
        return bytes(self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH))

    def finish(self) -> bytes:
        """Return what remains at the end of the body."""
        return bytes(self._stream.flush())
