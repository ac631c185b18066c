"""Responses to visitors: the edge's headers and error pages, and the rewriting of bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import h11

from emulator.edge.compression import Compressor, negotiate
from emulator.edge.exchange import Exchange
from emulator.edge.http import HOP_BY_HOP, Headers, HttpStream, ResponseHead, by_name
from emulator.edge.rocket_loader import Rewriter
from emulator.rulesets import COMPRESSION
from emulator.zone import Zone

POLISHED = (b"image/png", b"image/jpeg", b"image/gif")
# Reasons of the statuses that the edge itself answers with; those from 520 on are Cloudflare's own.
REASONS = {
    400: "Bad Request",
    409: "DNS resolution error",
    413: "Request Entity Too Large",
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
    530: "Origin DNS error",
}


async def deliver(
    stream: HttpStream, zone: Zone, exchange: Exchange, head: ResponseHead, body: AsyncIterator[bytes]
) -> None:
    """Send a response to the visitor through Polish, Rocket Loader and compression, according to the zone.

    Raises OSError, and what `body` raises.
    """
    headers = _polished(zone, exchange, head.headers)
    headers, filters = _filters(zone, exchange, head.status, headers)
    exchange.status = head.status
    await stream.send(h11.Response(status_code=head.status, headers=headers, reason=head.reason))
    async for piece in body:
        for step in filters:
            piece = step.feed(piece)
        if piece:
            await stream.send(h11.Data(data=piece))
    rest = b""
    for step in filters:
        rest = (step.feed(rest) if rest else b"") + step.finish()
    if rest:
        await stream.send(h11.Data(data=rest))
    await stream.send(h11.EndOfMessage())


def _polished(zone: Zone, exchange: Exchange, headers: Headers) -> Headers:
    """Return the headers with the one that Polish adds to images."""
    content_type = by_name(headers).get(b"content-type", b"")
    if exchange.config.get("polish", zone.value("polish")) == "off" or not content_type.startswith(POLISHED):
        return headers
    # Nothing is re-encoded here; Cloudflare sends this for an image that it cannot make smaller.
    return [*headers, (b"Cf-Polished", b"status=not_needed")]


def _filters(
    zone: Zone, exchange: Exchange, status: int, headers: Headers
) -> tuple[Headers, list[Rewriter | Compressor]]:
    """Return the filters that a response's body passes in order, and the headers that result."""
    filters: list[Rewriter | Compressor] = []
    if exchange.is_head:
        return headers, filters
    if exchange.config.get("rocket_loader", zone.on("rocket_loader")) and (
        rewriter := Rewriter.for_response(status, headers)
    ):
        filters.append(rewriter)
        headers = rewriter.headers(headers)
    if status == 200:
        content_type = by_name(headers).get(b"content-type", b"")
        facts = exchange.facts | {
            "http.response.code": status,
            "http.response.content_type.media_type": (
                content_type.decode("latin-1").partition(";")[0].strip().lower()
            ),
        }
        settings = zone.rulesets.parameters(COMPRESSION, facts)
        encoding = negotiate(exchange.accept_encoding, settings)
        if compressor := Compressor.for_response(encoding, headers):
            filters.append(compressor)
            headers = compressor.headers(headers)
    return headers, filters


def edge_headers(headers: Iterable[tuple[bytes, bytes]], ray: str, cache_status: str = "DYNAMIC") -> Headers:
    """Return a response's headers without hop-by-hop ones, with the edge's own added."""
    own = HOP_BY_HOP | {b"server", b"cf-ray", b"cf-cache-status"}
    kept = [(name, value) for name, value in headers if name.lower() not in own]
    return [
        *kept,
        (b"Server", b"cloudflare"),
        (b"CF-RAY", ray.encode()),
        (b"CF-Cache-Status", cache_status.encode()),
    ]


def error_page(status: int, ray: str) -> bytes:
    """Return the HTML page for an error status."""
    title = f"{status}: {REASONS.get(status, 'Error')}"
    return (
        f"<!DOCTYPE html>\n<html lang=en><title>{title}</title>\n<h1>Error {title}</h1>\n"
        f"<p>Cloudflare Ray ID: <strong>{ray}</strong> &bull; emulated</p>\n</html>\n"
    ).encode()
