"""Rocket Loader: defers a page's scripts until it has loaded, as Cloudflare's does.

`<script>` becomes `<script type="<hash>-text/javascript">`, which browsers ignore; a loader script at the end
of the body runs them in order after the load event. `data-cfasync="false"` exempts a script.
"""

from __future__ import annotations

import re
import secrets
import zlib

from emulator.edge.http import Headers, by_name, rewritten

SCRIPT_PATH = "/cdn-cgi/scripts/7d0fa10a/cloudflare-static/rocket-loader.min.js"
SCRIPT = b"""\
(function () {
  "use strict";
  var prefix = document.currentScript.dataset.cfSettings.split("|")[0];
  function run(queue) {
    var held = queue.shift();
    if (!held) return;
    var script = document.createElement("script");
    for (var attribute of held.attributes) script.setAttribute(attribute.name, attribute.value);
    script.type = held.type.slice(prefix.length);
    script.text = held.text;
    script.async = held.hasAttribute("async");
    var waits = script.src && !script.async;
    if (waits) script.onload = script.onerror = function () { run(queue); };
    held.replaceWith(script);
    if (!waits) run(queue);
  }
  function start() {
    run(Array.from(document.querySelectorAll('script[type^="' + prefix + '"]')));
  }
  if (document.readyState === "complete") start();
  else addEventListener("load", start);
})();
"""
DEFERRED_TYPES = {b"", b"module", b"text/javascript", b"application/javascript", b"application/x-javascript"}
MAX_TAG = 65_536  # bytes
MARK = re.compile(rb"<!--|<script(?=[\s/>])|</body(?=[\s>])", re.IGNORECASE)
OPENING = re.compile(rb"""<script(?:[^>"']|"[^"]*"|'[^']*')*>""", re.IGNORECASE)
TYPE = re.compile(rb"""\stype\s*=\s*("[^"]*"|'[^']*'|[^\s>"']+)""", re.IGNORECASE)
EXEMPT = re.compile(rb"""\sdata-cfasync\s*=\s*["']?false""", re.IGNORECASE)
CLOSING = re.compile(rb"</script", re.IGNORECASE)
COMMENT_END = re.compile(rb"-->")
PARTIAL = 10  # bytes at the end of a chunk that may be the beginning of a mark


class Rewriter:
    """Rewrites one HTML document piece by piece."""

    def __init__(self, gzipped: bool = False) -> None:
        self._prefix = secrets.token_hex(12).encode() + b"-"
        self._inflate = zlib.decompressobj(wbits=31) if gzipped else None
        self._buffer = b""
        self._inside: re.Pattern[bytes] | None = None  # the end of the current script or comment
        self._deferred = False

    @classmethod
    def for_response(cls, status: int, headers: Headers) -> Rewriter | None:
        """Return a rewriter for an HTML document, plain or gzipped; None for other responses."""
        fields = by_name(headers)
        encoding = fields.get(b"content-encoding", b"identity")
        html = fields.get(b"content-type", b"").lower().startswith(b"text/html")
        if status != 200 or not html or encoding not in (b"identity", b"gzip"):
            return None
        return cls(gzipped=encoding == b"gzip")

    def headers(self, headers: Headers) -> Headers:
        """Return the response's headers as they must be for the rewritten document."""
        return rewritten(headers)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the document and return what is ready. Raises zlib.error."""
        self._buffer += self._inflate.decompress(data) if self._inflate else data
        ready = []
        position = 0
        while True:
            pattern = self._inside or MARK
            found = pattern.search(self._buffer, position)
            if not found:
                end = max(position, len(self._buffer) - PARTIAL)
                ready.append(self._buffer[position:end])
                break
            ready.append(self._buffer[position : found.start()])
            mark = found.group().lower()
            end = found.start()
            if mark == b"<script":
                tag = OPENING.match(self._buffer, end)
                if not tag and len(self._buffer) - end < MAX_TAG:
                    break  # the tag continues in the next piece
                ready.append(self._defer(tag.group()) if tag else found.group())
                position = tag.end() if tag else found.end()
                self._inside = CLOSING
                continue
            if mark == b"</body":
                ready.append(self._loader())
            ready.append(found.group())
            self._inside = COMMENT_END if mark == b"<!--" else None
            position = found.end()
        self._buffer = self._buffer[end:]
        return b"".join(ready)

    def finish(self) -> bytes:
        """Return what remains at the end of the document."""
        return self._buffer + self._loader()

    def _loader(self) -> bytes:
        if not self._deferred:
            return b""
        self._deferred = False
        return b'<script src="%s" data-cf-settings="%s|49" defer></script>' % (
            SCRIPT_PATH.encode(),
            self._prefix,
        )

    def _defer(self, tag: bytes) -> bytes:
        found = TYPE.search(tag)
        kind = found.group(1).strip(b"\"'") if found else b""
        if kind.lower() not in DEFERRED_TYPES or EXEMPT.search(tag):
            return tag
        self._deferred = True
        deferred = b' type="%s%s"' % (self._prefix, kind or b"text/javascript")
        if found:
            return tag[: found.start()] + deferred + tag[found.end() :]
        return tag[:7] + deferred + tag[7:]
