"""One connection of a visitor: request after request, answered at the edge or by the origin."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import h11

from emulator.edge.cache import Entry
from emulator.edge.exchange import Exchange
from emulator.edge.forwarding import Forwarder, body_too_large, upload_limit
from emulator.edge.http import CHUNK, EdgeError, HttpStream, ResponseHead
from emulator.edge.response import REASONS, deliver, edge_headers, error_page
from emulator.edge.rocket_loader import SCRIPT, SCRIPT_PATH
from emulator.edge.tunnel import Tunnel
from emulator.rulesets import CACHE, CONFIG
from emulator.traffic import RequestRecord

if TYPE_CHECKING:
    from emulator.edge.server import Edge

KEEPALIVE_SECONDS = 400  # for which Cloudflare keeps a visitor's idle connection
LINGER_SECONDS = 5
HTML = b"text/html; charset=UTF-8"

log = logging.getLogger(__name__)


class Visitor:
    """One connection of a visitor, from its first byte to its last."""

    def __init__(self, edge: Edge, stream: HttpStream, scheme: str) -> None:
        peer = ipaddress.ip_address(stream.writer.get_extra_info("peername")[0])
        self.address = str(getattr(peer, "ipv4_mapped", None) or peer)
        self.edge = edge
        self.stream = stream
        self.scheme = scheme
        self.ray = ""
        self.origin: HttpStream | None = None
        self.tunnel: Tunnel | None = None

    def abort(self) -> None:
        """Drop the connections to the visitor and to the origin at once."""
        self.stream.abort()
        if self.origin:
            self.origin.abort()

    async def serve(self) -> None:
        """Answer requests until either side ends the connection. Raises OSError and VisitorGone."""
        http = self.stream.http
        while True:
            self.ray = f"{secrets.token_hex(8)}-EMU"
            exchange: Exchange | None = None
            try:
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    request = await self.stream.event()
                if not isinstance(request, h11.Request):
                    return
                exchange = Exchange(request, self.scheme, self.address, self.ray)
                await self._answer(exchange)
            except EdgeError as error:
                log.info("%s: %d, %s", self.ray, error.status, error)
                await self._send(exchange, error.status, error_page(error.status, self.ray))
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                await self._send(exchange, status, error_page(status, self.ray))
            finally:
                if self.origin:
                    self.origin.writer.close()
                    self.origin = None
                if exchange and exchange.status:
                    self.edge.ended(
                        RequestRecord(exchange.started, exchange.status, exchange.host, exchange.path)
                    )
            if http.our_state is h11.DONE and http.their_state is h11.DONE:
                http.start_next_cycle()
                continue
            if http.their_state is h11.SEND_BODY:
                await self._linger()
            return

    async def _answer(self, exchange: Exchange) -> None:
        """Answer one request at the edge, from the cache or from the origin. Raises EdgeError."""
        zone, ports = self.edge.zone, self.edge.ports
        host, target = exchange.host, exchange.target
        origins = zone.dns.origins(host)
        if not origins:
            raise EdgeError(409, f"{host!r} has no proxied DNS record in the zone {zone.name}")
        if not target.startswith("/") and target != "*":
            raise EdgeError(400, f"the request target {target!r} is not a path")
        exchange.config = zone.rulesets.parameters(CONFIG, exchange.facts)
        ssl_mode = exchange.config.get("ssl", zone.value("ssl"))
        if self.scheme == "https" and ssl_mode == "off":
            return await self._redirect(exchange, "http", ports.public_http)
        if self.scheme == "http" and zone.on("always_use_https") and ssl_mode != "off":
            return await self._redirect(exchange, "https", ports.public_https)
        if target == SCRIPT_PATH:
            return await self._send(exchange, 200, SCRIPT, b"application/javascript")
        limit = upload_limit(zone)
        if int(exchange.header(b"content-length") or 0) > limit:
            raise body_too_large(limit)

        upgrade = zone.on("websockets") and exchange.is_websocket_handshake
        if not upgrade and (entry := self._cached(exchange)):
            return await self._send_cached(exchange, entry)
        secure = self.scheme == "https" and ssl_mode in ("full", "strict")
        self.origin = await self.edge.connect(host, origins, secure, strict=ssl_mode == "strict")
        forwarder = Forwarder(zone, self.edge.cache, self.stream, self.origin, exchange)
        if await forwarder.run(upgrade):
            self.tunnel = Tunnel(self.stream, self.origin, lambda: self.edge.timing.idle_seconds)
            await self.tunnel.run()

    def _cached(self, exchange: Exchange) -> Entry | None:
        """Return the cached response to a request, if any; in development mode the cache is bypassed."""
        zone = self.edge.zone
        exchange.cache_settings = zone.rulesets.parameters(CACHE, exchange.facts)
        return None if zone.on("development_mode") else self.edge.cache.look_up(exchange)

    async def _send_cached(self, exchange: Exchange, entry: Entry) -> None:
        """Answer from the cache; 304 where the visitor has the same response already."""
        age = (b"Age", b"%d" % (time.monotonic() - entry.stored))
        headers = edge_headers([*entry.head.headers, age], self.ray, exchange.cache_status)
        headers += self.stream.close_header()
        head, body = entry.head._replace(headers=headers), entry.body
        etag = next((value for name, value in headers if name.lower() == b"etag"), b"")
        if etag and etag in exchange.header(b"if-none-match"):
            headers = [item for item in headers if item[0].lower() != b"content-length"]
            head, body = ResponseHead(304, b"Not Modified", headers), b""
        await deliver(self.stream, self.edge.zone, exchange, head, _pieces(body))

    async def _redirect(self, exchange: Exchange, scheme: str, port: int) -> None:
        default = {"http": 80, "https": 443}[scheme]
        authority = exchange.host if port == default else f"{exchange.host}:{port}"
        location = f"{scheme}://{authority}{exchange.target}".encode()
        await self._send(exchange, 301, b"", extra=[(b"Location", location)])

    async def _send(
        self,
        exchange: Exchange | None,
        status: int,
        body: bytes,
        content_type: bytes = HTML,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a response of the edge's own; `exchange` is None for a request that could not be parsed."""
        headers = edge_headers([*extra, (b"Content-Length", b"%d" % len(body))], self.ray)
        headers += [(b"Content-Type", content_type), (b"Cache-Control", b"no-store")]
        headers += self.stream.close_header()
        if exchange:
            exchange.status = status
        reason = REASONS.get(status, "").encode()
        await self.stream.send(h11.Response(status_code=status, headers=headers, reason=reason))
        if not (exchange and exchange.is_head):
            await self.stream.send(h11.Data(data=body))
        await self.stream.send(h11.EndOfMessage())

    async def _linger(self) -> None:
        """Discard further input: an immediate close would reset the visitor before it reads the response."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.stream.reader.read(CHUNK):
                    pass


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body
