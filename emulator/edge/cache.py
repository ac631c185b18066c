"""The edge's cache: which responses it keeps, by the zone's cache rules and the responses' own headers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.edge.compression import negotiate
from emulator.edge.exchange import Exchange
from emulator.edge.http import Headers, ResponseHead, by_name

# File extensions that Cloudflare caches without a rule (its page "Default cache behavior"); not HTML or JSON.
STATIC = {
    "7z", "avi", "avif", "apk", "bin", "bmp", "bz2", "class", "css", "csv", "doc", "docx", "dmg", "ejs",
    "eot", "eps", "exe", "flac", "gif", "gz", "ico", "iso", "jar", "jpeg", "jpg", "js", "mid", "midi",
    "mkv", "mp3", "mp4",
    "ogg", "otf", "pdf", "pict", "pls", "png", "ppt", "pptx", "ps", "rar", "svg", "svgz", "swf", "tar",
    "tif", "tiff", "ttf", "webm", "webp", "woff", "woff2", "xls", "xlsx", "zip", "zst",
}  # fmt: skip
# Seconds for which a response without cache headers is fresh, by status (Cloudflare's page "Cache by status
# code"). Partial content (206) is not cached here.
DEFAULT_SECONDS = {200: 7200, 301: 7200, 302: 1200, 303: 1200, 404: 180, 410: 180}
MAX_BODY = 8_000_000  # bytes of a body that is cached
MAX_ENTRIES = 500


@dataclass
class Entry:
    """A cached response."""

    head: ResponseHead
    body: bytes
    stored: float  # time.monotonic()
    fresh_for: float  # seconds


@dataclass
class Cache:
    """Responses by their cache key; the least recently used is dropped first."""

    entries: OrderedDict[tuple[str, ...], Entry] = field(default_factory=OrderedDict)

    def look_up(self, exchange: Exchange) -> Entry | None:
        """Return the fresh response to a request, if there is one.

        Sets the exchange's cache key and status where the request may be answered from a cache at all.
        """
        private = exchange.header(b"authorization") or exchange.header(b"range")
        if exchange.request.method != b"GET" or private or not _cacheable(exchange):
            return None
        encoding = negotiate(exchange.accept_encoding, {})
        exchange.cache_key = (exchange.scheme, exchange.host, exchange.target, encoding)
        exchange.cache_status, entry = self._find(exchange.cache_key)
        return entry

    def _find(self, key: tuple[str, ...]) -> tuple[str, Entry | None]:
        """Return HIT and the response; or EXPIRED or MISS, and None."""
        entry = self.entries.get(key)
        if entry is None:
            return "MISS", None
        if time.monotonic() - entry.stored >= entry.fresh_for:
            del self.entries[key]
            return "EXPIRED", None
        self.entries.move_to_end(key)
        return "HIT", entry

    def store(self, key: tuple[str, ...], entry: Entry) -> None:
        """Keep a response."""
        self.entries[key] = entry
        while len(self.entries) > MAX_ENTRIES:
            self.entries.popitem(last=False)


def _cacheable(exchange: Exchange) -> bool:
    """Whether responses for the path may be cached: by the matching rules, else by the file extension."""
    if "cache" in exchange.cache_settings:
        return bool(exchange.cache_settings["cache"])
    return exchange.path.rpartition("/")[2].rpartition(".")[2].lower() in STATIC


def lifetime(status: int, headers: Headers, settings: Mapping[str, Any]) -> float:
    """Return for how many seconds a response is fresh; 0 when it must not be cached.

    `settings` are the parameters of the matching cache rules.
    """
    fields = {name: value.decode("latin-1").lower() for name, value in by_name(headers).items()}
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
