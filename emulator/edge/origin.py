"""Connections from the edge to an origin, and the headers that it sends there."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import h11

from emulator.edge.exchange import Exchange
from emulator.edge.http import CHUNK, HOP_BY_HOP, EdgeError, Headers, HttpStream, tokens
from emulator.zone import Zone

# Only the edge may set these; the visitor's own are dropped, as is every cf-* header.
FORGEABLE = {b"x-forwarded-proto", b"x-forwarded-for", b"cdn-loop", b"true-client-ip"}


async def connect(
    origins: Sequence[str], port: int, max_seconds: float, context: ssl.SSLContext | None, host: str
) -> HttpStream:
    """Connect to one of the `origins` (addresses or host names), in random order until one accepts.

    `max_seconds` limits each TCP connection and the TLS handshake; `context` is None for
    plain HTTP; `host` is the SNI name. Raises EdgeError: 521 refused, 522 timed out, 523 no route, 530 name
    not found, 525 TLS handshake failed, 526 certificate not valid for `host`.
    """
    candidates: list[tuple[socket.AddressFamily, Any]] = []
    for origin in secrets.SystemRandom().sample(origins, len(origins)):
        candidates += await _resolve(origin, port)
    while True:
        family, address = candidates.pop(0)
        try:
            connection = await _connect_tcp(family, address, max_seconds)
            break
        except EdgeError:
            if not candidates:
                raise
    tls: dict[str, Any] = {}
    if context:
        tls = {"ssl": context, "server_hostname": host, "ssl_handshake_timeout": max_seconds}
    try:
        reader, writer = await asyncio.open_connection(sock=connection, limit=CHUNK, **tls)
    except ssl.SSLCertVerificationError as error:
        raise EdgeError(526, f"{address[0]} port {port}: {error.verify_message}") from error
    except OSError as error:
        raise EdgeError(525, f"{address[0]} port {port}: TLS handshake failed: {error}") from error
    return HttpStream(h11.CLIENT, reader, writer)


async def _resolve(origin: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    """Return the socket addresses of an address or host name, best first. Raises EdgeError 530."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(origin, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EdgeError(530, f"the origin's name {origin!r} does not resolve: {error}") from error
    return [(family, address) for family, _, _, _, address in found]


async def _connect_tcp(family: socket.AddressFamily, address: Any, max_seconds: float) -> socket.socket:
    connection = socket.socket(family)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(max_seconds):
            await asyncio.get_running_loop().sock_connect(connection, address)
    except OSError as error:
        connection.close()
        status = {ConnectionRefusedError: 521, TimeoutError: 522}.get(type(error), 523)
        raise EdgeError(status, f"{address[0]} port {address[1]}: {error!r}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def request_headers(exchange: Exchange, zone: Zone, upgrade: bool) -> Headers:
    """Return the headers for the origin: the visitor's without hop-by-hop and forgeable ones, and the edge's.

    `upgrade` is True for a WebSocket handshake that the zone lets through.
    """
    request = exchange.request
    dropped = HOP_BY_HOP | FORGEABLE | tokens(exchange.header(b"connection"))
    if not upgrade:
        # With WebSockets off the handshake arrives as a plain GET (cloudflare/cloudflared#157).
        dropped |= {name for name, _ in request.headers if name.startswith(b"sec-websocket-")}
    headers = [
        (raw, value)
        for (raw, value), (name, _) in zip(request.headers.raw_items(), request.headers, strict=True)
        if name not in dropped and not name.startswith(b"cf-")
    ]
    forwarded = exchange.header(b"x-forwarded-for")
    loops = [loop for loop in exchange.header(b"cdn-loop").split(b",") if b"cloudflare" not in loop]
    address = exchange.address.encode()
    headers += [
        (b"X-Forwarded-For", forwarded + b", " + address if forwarded else address),
        (b"X-Forwarded-Proto", exchange.scheme.encode()),
        (b"CF-Connecting-IP", address),
        (b"CF-Ray", exchange.ray.encode()),
        (b"CF-Visitor", json.dumps({"scheme": exchange.scheme}, separators=(",", ":")).encode()),
        (b"CDN-Loop", b", ".join([*(loop.strip() for loop in loops if loop), b"cloudflare; loops=1"])),
    ]
    if zone.on("ip_geolocation"):
        headers.append((b"CF-IPCountry", b"XX"))  # Cloudflare's code for an unknown country
    if zone.on("true_client_ip_header"):
        headers.append((b"True-Client-IP", address))
    if upgrade:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    return headers
