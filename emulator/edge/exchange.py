"""One request of a visitor, with the state and the decisions of the edge about it."""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass, field
from typing import Any

import h11

from emulator.edge.http import header, tokens


@dataclass
class Exchange:
    """A request and the state of its response."""

    request: h11.Request
    scheme: str  # the visitor's: http or https
    address: str  # the visitor's IP address
    ray: str  # the CF-Ray identifier
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    config: dict[str, Any] = field(default_factory=dict)  # parameters of the matching configuration rules
    cache_settings: dict[str, Any] = field(default_factory=dict)  # of the matching cache rules
    cache_key: tuple[str, ...] | None = None  # None: the response is not cached
    cache_status: str = "DYNAMIC"  # of the CF-Cache-Status header
    status: int = 0  # the HTTP status sent to the visitor; 0 before that

    def header(self, name: bytes) -> bytes:
        """Return a request header by its lower-case name, b"" when absent."""
        return header(self.request, name)

    @property
    def is_head(self) -> bool:
        """Whether the response must not have a body."""
        return self.request.method == b"HEAD"

    @property
    def is_websocket_handshake(self) -> bool:
        """Whether the visitor requests an upgrade to WebSocket."""
        return (
            self.request.method == b"GET"
            and self.header(b"upgrade").lower() == b"websocket"
            and b"upgrade" in tokens(self.header(b"connection"))
        )

    @property
    def target(self) -> str:
        """The request target: path and query."""
        return self.request.target.decode("latin-1")

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    @property
    def host(self) -> str:
        """The requested host name in lower case, without the port."""
        host = self.header(b"host").decode("latin-1").lower()
        return host.rpartition(":")[0] if re.fullmatch(r".*:\d*", host) else host

    @property
    def accept_encoding(self) -> str:
        """The Accept-Encoding header."""
        return self.header(b"accept-encoding").decode("latin-1")

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The fields that rule expressions can read, by name (Cloudflare's rules language fields)."""
        path, _, query = self.target.partition("?")
        name = path.rpartition("/")[2]
        text = {
            key: self.header(key.encode()).decode("latin-1") for key in ("cookie", "referer", "user-agent")
        }
        return {
            "http.cookie": text["cookie"],
            "http.host": self.host,
            "http.referer": text["referer"],
            "http.request.full_uri": f"{self.scheme}://{self.host}{self.target}",
            "http.request.method": self.request.method.decode(),
            "http.request.uri": self.target,
            "http.request.uri.path": path,
            "http.request.uri.path.extension": name.rpartition(".")[2].lower() if "." in name else "",
            "http.request.uri.query": query,
            "http.user_agent": text["user-agent"],
            "ip.src": self.address,
            "ssl": self.scheme == "https",
        }
