"""HTTP/1.1 as both sides of the edge use it: a byte stream with its state machine, header helpers, errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import h11

CHUNK = 65_536  # bytes read at a time
MAX_HEADER_BYTES = 131_072
# Hop-by-hop headers (RFC 9110, section 7.6.1), and Expect, which the edge answers itself.
HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"expect",
}  # fmt: skip

Headers = list[tuple[bytes, bytes]]


class ResponseHead(NamedTuple):
    """The status line and headers of a response."""

    status: int
    reason: bytes
    headers: Headers


class VisitorGone(Exception):
    """The visitor closed its connection or violated HTTP in the middle of a request."""


class EdgeError(Exception):
    """A request that the edge answers itself, with the Cloudflare error page of the HTTP status `status`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class HttpStream:
    """One side of a proxied connection: a byte stream and its h11 state machine.

    `role` is h11.SERVER towards a visitor, h11.CLIENT towards an origin.
    """

    def __init__(self, role: type[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http = h11.Connection(role, max_incomplete_event_size=MAX_HEADER_BYTES)
        self.reader = reader
        self.writer = writer

    async def event(self) -> Any:
        """Return the next h11 event, reading as needed. Raises h11.RemoteProtocolError and OSError."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.reader.read(CHUNK))
        return event

    async def final_response(self) -> Any:
        """Return the next event other than informational responses, but 101 too. Raises as event() does."""
        while True:
            event = await self.event()
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                return event

    async def send(self, event: Any) -> None:
        """Send an h11 event and wait while the peer reads more slowly than we write. Raises OSError."""
        if pieces := self.http.send_with_data_passthrough(event):
            self.writer.writelines(pieces)
            await self.writer.drain()

    def close_header(self) -> Headers:
        """Return `Connection: close` if part of the request's body is unread, else no header.

        The edge answers such a request without reading the body, so the connection cannot be reused.
        """
        complete = self.http.their_state is not h11.SEND_BODY or isinstance(
            self.http.next_event(), h11.EndOfMessage
        )
        return [] if complete else [(b"Connection", b"close")]

    def abort(self) -> None:
        """Drop the connection at once: no TLS close_notify, no WebSocket close frame."""
        # Before Python 3.11.4 this raises for a TLS connection that is already closed.
        with contextlib.suppress(AttributeError):
            self.writer.transport.abort()


def header(request: h11.Request, name: bytes) -> bytes:
    """Return a request header by its lower-case name, repeated values joined by commas; b"" when absent."""
    return b", ".join(value for key, value in request.headers if key == name)


def tokens(value: bytes) -> set[bytes]:
    """Return the comma-separated tokens of a header value, in lower case."""
    return {token.strip().lower() for token in value.split(b",")}


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers as a dictionary with lower-case names; the last of repeated headers wins."""
    return {name.lower(): value for name, value in headers}


def rewritten(headers: Headers, *invalid: bytes) -> Headers:
    """Return the headers of a response whose body the edge rewrites.

    The headers named in `invalid` (lower case), Content-Length and Content-Encoding are dropped; an ETag
    becomes weak, since the bytes are no longer the origin's.
    """
    dropped = {*invalid, b"content-length", b"content-encoding", b"etag"}
    kept = [item for item in headers if item[0].lower() not in dropped]
    for name, value in headers:
        if name.lower() == b"etag":
            kept.append((name, value if value.startswith(b"W/") else b"W/" + value))
    return kept
