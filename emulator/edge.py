"""The edge: terminates TLS for the zone's names, proxies HTTP/1.1 and WebSockets as the settings say.

What it leaves out: HTTP/2 and HTTP/3 towards visitors (it offers http/1.1 alone), brotli and zstd, and the
settings that only change pages or block bots. Each request opens its own connection to the origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import ipaddress
import json
import logging
import re
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import h11

from emulator.cache import LARGEST, Cache, Compressor, Entry, algorithm, eligible, lifetime
from emulator.certificates import EdgeTls
from emulator.rocket_loader import SCRIPT, SCRIPT_PATH, Rewriter
from emulator.rulesets import CACHE, COMPRESSION, CONFIG
from emulator.traffic import Seen
from emulator.zone import Zone

CHUNK = 65_536
MAX_HEADER_BYTES = 131_072
KEEPALIVE_SECONDS = 400  # how long Cloudflare keeps a visitor's idle connection
LINGER_SECONDS = 5
HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"expect",
}  # fmt: skip
# Set by the edge alone; a visitor's own are dropped, and so is every cf- header.
FORGEABLE = {b"x-forwarded-proto", b"x-forwarded-for", b"cdn-loop", b"true-client-ip"}
POLISHED = (b"image/png", b"image/jpeg", b"image/gif")
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

Headers = list[tuple[bytes, bytes]]
log = logging.getLogger(__name__)


class VisitorGone(Exception):
    """The visitor ended its connection, or broke HTTP, within a request."""


class EdgeError(Exception):
    """A request that the edge answers itself, with one of Cloudflare's error pages."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Ports:
    """Where visitors find the edge by a redirect, and where it finds the origin."""

    public_http: int = 80
    public_https: int = 443
    origin_http: int = 80
    origin_https: int = 443


@dataclass(frozen=True)
class Timing:
    """How long the edge waits, in seconds."""

    idle_seconds: float = 100  # on a tunnel without a byte in either direction
    connect_seconds: float = 19  # for the origin to accept a connection


@dataclass
class Plan:
    """What the zone's rules say of one request."""

    facts: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    key: tuple[str, ...] | None = None  # by which the answer is cached; None: not at all
    cache_status: str = "DYNAMIC"


class Stream:
    """One side of a proxied connection: a byte stream with its HTTP state machine."""

    def __init__(self, role: type[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http = h11.Connection(role, max_incomplete_event_size=MAX_HEADER_BYTES)
        self.reader = reader
        self.writer = writer

    async def event(self) -> Any:
        """Return the next h11 event, reading as needed. Raises h11.RemoteProtocolError and OSError."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.reader.read(CHUNK))
        return event

    async def send(self, event: Any) -> None:
        """Send an h11 event, waiting while the peer reads slower than we write."""
        if pieces := self.http.send_with_data_passthrough(event):
            self.writer.writelines(pieces)
            await self.writer.drain()

    def abort(self) -> None:
        """Drop the connection at once: no TLS farewell, no WebSocket close frame."""
        # Before Python 3.11.4 a TLS connection that is already gone does not take it.
        with contextlib.suppress(AttributeError):
            self.writer.transport.abort()


class Visitor:
    """One connection of a visitor, from its first byte to its last."""

    def __init__(self, edge: Edge, stream: Stream, scheme: str) -> None:
        peer = ipaddress.ip_address(stream.writer.get_extra_info("peername")[0])
        self.address = str(getattr(peer, "ipv4_mapped", None) or peer)
        self.edge = edge
        self.stream = stream
        self.scheme = scheme
        self.origin: Stream | None = None
        self.ray = ""
        self.head = False
        self.status = 0
        self.tunnel: asyncio.TimerHandle | None = None
        self.last_byte = 0.0

    def abort(self) -> None:
        """Drop both sides at once."""
        self.stream.abort()
        if self.origin:
            self.origin.abort()

    async def serve(self) -> None:
        """Answer requests until either side ends the connection. Raises OSError and VisitorGone."""
        http = self.stream.http
        while True:
            self.ray = f"{secrets.token_hex(8)}-EMU"
            self.head = False
            self.status = 0
            began = dt.datetime.now(dt.UTC)
            request: Any = None
            try:
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    request = await self.stream.event()
                if not isinstance(request, h11.Request):
                    return
                self.head = request.method == b"HEAD"
                await self._answer(request)
            except EdgeError as error:
                log.info("%s: %d, %s", self.ray, error.status, error)
                await self._respond(error.status, _error_page(error.status, self.ray))
            except h11.RemoteProtocolError as error:
                await self._respond(error.error_status_hint, _error_page(error.error_status_hint, self.ray))
            finally:
                if self.origin:
                    self.origin.writer.close()
                    self.origin = None
                if self.status and isinstance(request, h11.Request):
                    path = request.target.decode("latin-1").partition("?")[0]
                    self.edge.ended(Seen(began, self.status, _host(request), path))
            if http.our_state is h11.DONE and http.their_state is h11.DONE:
                http.start_next_cycle()
                continue
            if http.their_state is h11.SEND_BODY:
                await self._linger()
            return

    async def _answer(self, request: h11.Request) -> None:
        """Answer one request: at the edge, or from the origin. Raises EdgeError."""
        zone = self.edge.zone
        host = _host(request)
        origins = zone.dns.origins(host)
        if not origins:
            raise EdgeError(409, f"{host!r} has no proxied DNS record in the zone {zone.name}")
        target = request.target.decode("latin-1")
        if not target.startswith("/") and target != "*":
            raise EdgeError(400, "the request's target is no path")
        plan = Plan(_facts(request, self.scheme, host, target, self.address))
        for parameters in zone.rulesets.matching(CONFIG, plan.facts):
            plan.config.update(parameters)
        ssl_mode = plan.config.get("ssl", zone.value("ssl"))
        ports = self.edge.ports
        if self.scheme == "https" and ssl_mode == "off":
            return await self._redirect("http", host, ports.public_http, target)
        if self.scheme == "http" and zone.on("always_use_https") and ssl_mode != "off":
            return await self._redirect("https", host, ports.public_https, target)
        if target == SCRIPT_PATH:
            return await self._respond(200, SCRIPT, b"application/javascript")
        limit = int(zone.value("max_upload")) * 1_000_000
        if int(_header(request, b"content-length") or 0) > limit:
            raise EdgeError(413, f"the body is larger than {limit} bytes")

        upgrade = (
            zone.on("websockets")
            and request.method == b"GET"
            and _header(request, b"upgrade").lower() == b"websocket"
            and b"upgrade" in _tokens(_header(request, b"connection"))
        )
        if not upgrade and (kept := self._cached(request, plan)):
            return await self._serve_kept(request, kept, plan)
        secure = self.scheme == "https" and ssl_mode in ("full", "strict")
        self.origin = await self.edge.connect(host, origins, secure, strict=ssl_mode == "strict")
        await self._forward(self.origin, request, upgrade, limit, plan)

    def _cached(self, request: h11.Request, plan: Plan) -> Entry | None:
        """Return the kept answer to a request, if there is one; the plan then says by which key and why."""
        zone, facts = self.edge.zone, plan.facts
        for parameters in zone.rulesets.matching(CACHE, facts):
            plan.cache.update(parameters)
        private = _header(request, b"authorization") or _header(request, b"range")
        if (
            request.method != b"GET"
            or private
            or zone.on("development_mode")
            or not eligible(facts["http.request.uri.path"], plan.cache)
        ):
            return None
        gzip = algorithm(_header(request, b"accept-encoding").decode("latin-1"), {})
        plan.key = (self.scheme, facts["http.host"], facts["http.request.uri"], gzip)
        plan.cache_status, entry = self.edge.cache.find(plan.key)
        return entry

    async def _serve_kept(self, request: h11.Request, entry: Entry, plan: Plan) -> None:
        """Answer from the cache."""
        age = (b"Age", b"%d" % (time.monotonic() - entry.stored))
        headers = _response_headers([*entry.headers, age], self.ray, plan.cache_status)
        headers += self._end_of_request()
        etag = next((value for name, value in headers if name.lower() == b"etag"), b"")
        if etag and etag in _header(request, b"if-none-match"):
            headers = [header for header in headers if header[0].lower() != b"content-length"]
            return await self._deliver(304, b"Not Modified", headers, _pieces(b""), request, plan)
        await self._deliver(entry.status, entry.reason, headers, _pieces(entry.body), request, plan)

    async def _forward(
        self, origin: Stream, request: h11.Request, upgrade: bool, limit: int, plan: Plan
    ) -> None:
        """Carry a request to the origin and its answer back. Raises EdgeError, OSError, VisitorGone."""
        patience = float(self.edge.zone.value("proxy_read_timeout"))
        headers = self._request_headers(request, upgrade)
        upload: asyncio.Task[None] | None = None
        try:
            await origin.send(h11.Request(method=request.method, target=request.target, headers=headers))
            upload = asyncio.create_task(self._upload(origin, limit))
            if upgrade:
                await upload
            response = await self._response(origin, upload, patience)
            if isinstance(response, h11.InformationalResponse):
                await self._tunnel(origin, response)
            else:
                await self._download(origin, response, request, patience, plan)
        except (OSError, h11.RemoteProtocolError) as error:
            if self.stream.http.our_state is not h11.SEND_RESPONSE:
                raise ConnectionAbortedError(f"cut within the answer: {error!r}") from error
            raise EdgeError(520, f"the origin broke the connection: {error!r}") from error
        finally:
            if upload:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self, origin: Stream, limit: int) -> None:
        """Carry the request's body to the origin, as far as it takes it.

        Raises EdgeError 413 for a body that grows over `limit` bytes, VisitorGone when it ends too early.
        """
        size = 0
        try:
            if self.stream.http.they_are_waiting_for_100_continue:
                await self.stream.send(h11.InformationalResponse(status_code=100, headers=[]))
            while isinstance(event := await self.stream.event(), h11.Data):
                size += len(event.data)
                if size > limit:
                    raise EdgeError(413, f"the body is larger than {limit} bytes")
                try:
                    await origin.send(h11.Data(data=event.data))
                except OSError:
                    return  # its answer, if there is one, says why
        except (OSError, h11.RemoteProtocolError) as error:
            raise VisitorGone(f"within the request's body: {error!r}") from error
        if not isinstance(event, h11.EndOfMessage):
            raise VisitorGone("within the request's body")
        await origin.send(h11.EndOfMessage())

    async def _response(
        self, origin: Stream, upload: asyncio.Task[None], patience: float
    ) -> h11.Response | h11.InformationalResponse:
        """Return the origin's final answer or its 101, which may come before the upload's end.

        Raises EdgeError 524 when the origin is silent for `patience` seconds after it took the body, 520 when
        it leaves without an answer, and what ended the upload.
        """
        answer = asyncio.create_task(_final_event(origin))
        try:
            await asyncio.wait({answer, upload}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                upload.result()
            try:
                async with asyncio.timeout(patience):
                    event = await answer
            except TimeoutError:
                raise EdgeError(524, f"the origin did not answer within {patience:g} s") from None
        finally:
            answer.cancel()
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise EdgeError(520, "the origin closed the connection without an answer")
        return event

    async def _download(
        self, origin: Stream, response: h11.Response, request: h11.Request, patience: float, plan: Plan
    ) -> None:
        """Carry the origin's answer to the visitor, and keep it where the rules and its headers let us."""
        raw = [header for header in response.headers.raw_items() if header[0].lower() not in HOP_BY_HOP]
        seconds = lifetime(response.status_code, raw, plan.cache) if plan.key else 0
        if plan.key and not seconds:
            plan.cache_status = "BYPASS"
        kept = bytearray()

        async def body() -> AsyncIterator[bytes]:
            while True:
                async with asyncio.timeout(patience):
                    event = await origin.event()
                if isinstance(event, h11.EndOfMessage):
                    return
                if not isinstance(event, h11.Data):
                    raise ConnectionAbortedError("the origin left within its answer")
                if seconds and len(kept) <= LARGEST:
                    kept.extend(event.data)
                yield bytes(event.data)

        status, reason = response.status_code, response.reason
        headers = _response_headers(raw, self.ray, plan.cache_status)
        await self._deliver(status, reason, headers, body(), request, plan)
        if plan.key and seconds and len(kept) <= LARGEST:
            entry = Entry(status, reason, raw, bytes(kept), time.monotonic(), seconds)
            self.edge.cache.store(plan.key, entry)

    async def _deliver(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        body: AsyncIterator[bytes],
        request: h11.Request,
        plan: Plan,
    ) -> None:
        """Send an answer, through what the zone wants changed in it."""
        zone = self.edge.zone
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        if plan.config.get("polish", zone.value("polish")) != "off" and kind.startswith(POLISHED):
            # The emulator re-encodes nothing; Cloudflare says this of an image that can't be made smaller.
            headers = [*headers, (b"Cf-Polished", b"status=not_needed")]
        filters: list[Rewriter | Compressor] = []
        rocket = not self.head and plan.config.get("rocket_loader", zone.on("rocket_loader"))
        if rocket and (rewriter := Rewriter.for_response(status, headers)):
            filters.append(rewriter)
            headers = rewriter.headers(headers)
        if not self.head and status == 200:
            media = kind.decode("latin-1").partition(";")[0].strip().lower()
            facts = plan.facts | {
                "http.response.code": status,
                "http.response.content_type.media_type": media,
            }
            settings: dict[str, Any] = {}
            for parameters in zone.rulesets.matching(COMPRESSION, facts):
                settings.update(parameters)
            wanted = algorithm(_header(request, b"accept-encoding").decode("latin-1"), settings)
            if compressor := Compressor.for_response(wanted, headers):
                filters.append(compressor)
                headers = compressor.headers(headers)
        self.status = status
        await self.stream.send(h11.Response(status_code=status, headers=headers, reason=reason))
        async for piece in body:
            for step in filters:
                piece = step.feed(piece)
            if piece:
                await self.stream.send(h11.Data(data=piece))
        rest = b""
        for step in filters:
            rest = (step.feed(rest) if rest else b"") + step.finish()
        if rest:
            await self.stream.send(h11.Data(data=rest))
        await self.stream.send(h11.EndOfMessage())

    async def _tunnel(self, origin: Stream, response: h11.InformationalResponse) -> None:
        """Carry bytes both ways until a side closes or nothing moved for the idle time."""
        headers = _response_headers(response.headers.raw_items(), self.ray)
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        self.status = 101
        await self.stream.send(
            h11.InformationalResponse(status_code=101, headers=headers, reason=response.reason)
        )
        visitor = self.stream
        visitor.writer.write(origin.http.trailing_data[0])
        origin.writer.write(visitor.http.trailing_data[0])
        self.last_byte = asyncio.get_running_loop().time()
        self.watch_idle()
        pumps = [
            asyncio.create_task(self._pump(visitor.reader, origin.writer)),
            asyncio.create_task(self._pump(origin.reader, visitor.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.tunnel:
                self.tunnel.cancel()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        while data := await reader.read(CHUNK):
            self.last_byte = now()
            writer.write(data)
            await writer.drain()

    def watch_idle(self) -> None:
        """Cut the tunnel if it was silent for the idle time, else look again when it could have been."""
        if self.tunnel:
            self.tunnel.cancel()
        loop = asyncio.get_running_loop()
        left = self.last_byte + self.edge.timing.idle_seconds - loop.time()
        if left > 0:
            self.tunnel = loop.call_later(left, self.watch_idle)
        else:
            self.abort()

    def _request_headers(self, request: h11.Request, upgrade: bool) -> Headers:
        """Return what the origin gets: the visitor's headers, none forged or hop-by-hop, and the edge's."""
        dropped = HOP_BY_HOP | FORGEABLE | _tokens(_header(request, b"connection"))
        if not upgrade:
            # Without the setting the handshake arrives as a plain GET (cloudflare/cloudflared#157).
            dropped |= {name for name, _ in request.headers if name.startswith(b"sec-websocket-")}
        headers = [
            (raw, value)
            for (raw, value), (name, _) in zip(request.headers.raw_items(), request.headers, strict=True)
            if name not in dropped and not name.startswith(b"cf-")
        ]
        forwarded = _header(request, b"x-forwarded-for")
        loops = [token for token in _header(request, b"cdn-loop").split(b",") if b"cloudflare" not in token]
        address = self.address.encode()
        headers += [
            (b"X-Forwarded-For", forwarded + b", " + address if forwarded else address),
            (b"X-Forwarded-Proto", self.scheme.encode()),
            (b"CF-Connecting-IP", address),
            (b"CF-Ray", self.ray.encode()),
            (b"CF-Visitor", json.dumps({"scheme": self.scheme}, separators=(",", ":")).encode()),
            (b"CDN-Loop", b", ".join([*(loop.strip() for loop in loops if loop), b"cloudflare; loops=1"])),
        ]
        if self.edge.zone.on("ip_geolocation"):
            headers.append((b"CF-IPCountry", b"XX"))  # Cloudflare's code for an unknown country
        if self.edge.zone.on("true_client_ip_header"):
            headers.append((b"True-Client-IP", address))
        if upgrade:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif any(name == b"transfer-encoding" for name, _ in request.headers):
            headers.append((b"Transfer-Encoding", b"chunked"))
        return headers

    async def _redirect(self, scheme: str, host: str, port: int, target: str) -> None:
        default = {"http": 80, "https": 443}[scheme]
        place = f"{scheme}://{host}{'' if port == default else f':{port}'}{target}"
        await self._respond(301, b"", extra=[(b"Location", place.encode())])

    async def _respond(
        self,
        status: int,
        body: bytes,
        kind: bytes = b"text/html; charset=UTF-8",
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send an answer of the edge's own."""
        headers = _response_headers([*extra, (b"Content-Length", b"%d" % len(body))], self.ray)
        headers += [(b"Content-Type", kind), (b"Cache-Control", b"no-store"), *self._end_of_request()]
        reason = REASONS.get(status, "").encode()
        self.status = status
        await self.stream.send(h11.Response(status_code=status, headers=headers, reason=reason))
        if not self.head:
            await self.stream.send(h11.Data(data=body))
        await self.stream.send(h11.EndOfMessage())

    def _end_of_request(self) -> Headers:
        """Take note that the request is over; return the header that tells a body nobody here will read."""
        http = self.stream.http
        over = http.their_state is not h11.SEND_BODY or isinstance(http.next_event(), h11.EndOfMessage)
        return [] if over else [(b"Connection", b"close")]

    async def _linger(self) -> None:
        """Read away what a visitor still sends: closing at once would reset it before it read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.stream.reader.read(CHUNK):
                    pass


class Edge:
    """Listens for visitors and connects them to the origin."""

    def __init__(
        self,
        zone: Zone,
        tls: EdgeTls,
        ports: Ports | None = None,
        timing: Timing | None = None,
        ended: Callable[[Seen], None] = lambda seen: None,
    ) -> None:
        """Make an edge that does not listen yet; `ended` is told of each request that has ended."""
        self.ended = ended
        self.cache = Cache()
        self.zone = zone
        self.tls = tls
        self.ports = ports or Ports()
        self.timing = self._initial_timing = timing or Timing()
        self._visitors: set[Visitor] = set()
        self._servers: list[asyncio.Server] = []
        tls.visitors.sni_callback = self._choose
        zone.store.on_save.append(self._obey)
        self._obey()

    async def start(self, address: str, https_port: int, http_port: int) -> tuple[int, int]:
        """Listen on both ports (0 takes a free one) and return them, https first. Raises OSError."""
        for port, scheme, context in (
            (https_port, "https", self.tls.visitors),
            (http_port, "http", None),
        ):
            # The handshake's time limit must not be given where there is no TLS.
            limits = {"ssl_handshake_timeout": 10.0} if context else {}
            self._servers.append(
                await asyncio.start_server(
                    functools.partial(self._serve, scheme),
                    address,
                    port,
                    ssl=context,
                    limit=CHUNK,
                    backlog=1024,
                    **limits,
                )
            )
        https, http = (server.sockets[0].getsockname()[1] for server in self._servers)
        return https, http

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        self.cut()
        for server in self._servers:
            await server.wait_closed()

    def cut(self) -> int:
        """Drop every connection at once, as at an edge restart; return how many there were."""
        visitors = list(self._visitors)
        for visitor in visitors:
            visitor.abort()
        return len(visitors)

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change timings, for open tunnels too. Raises ValueError naming the one that is wrong."""
        known = asdict(self.timing)
        for name, seconds in changes.items():
            if name not in known:
                raise ValueError(f"edge: {name!r} is unknown; known are {', '.join(known)}")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 86400:
                raise ValueError(
                    f"edge: {name} takes seconds, more than 0 and less than a day, not {seconds!r}"
                )
        self.timing = replace(self.timing, **changes)
        for visitor in self._visitors:
            if visitor.tunnel:
                visitor.watch_idle()

    def reset(self) -> None:
        """Return to the timings of the start, with an empty cache."""
        self.cache.entries.clear()
        self.configure(asdict(self._initial_timing))

    def describe(self) -> dict[str, Any]:
        """Return the timings and what is open now."""
        tunnels = sum(visitor.tunnel is not None for visitor in self._visitors)
        return {**asdict(self.timing), "connections": len(self._visitors), "tunnels": tunnels}

    def _obey(self) -> None:
        self.tls.accept(str(self.zone.value("min_tls_version")), self.zone.value("tls_1_3") != "off")

    def _choose(self, connection: object, name: str | None, context: ssl.SSLContext) -> int | None:
        served = name is not None and self.zone.dns.origins(name)
        return None if served else ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE

    async def _serve(self, scheme: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = Visitor(self, Stream(h11.SERVER, reader, writer), scheme)
        self._visitors.add(visitor)
        try:
            await visitor.serve()
            writer.close()
            await writer.wait_closed()
        except (OSError, VisitorGone) as error:
            log.debug("%s: connection ended: %r", visitor.ray, error)
        except Exception:
            log.exception("%s: the edge itself failed", visitor.ray)
        finally:
            visitor.abort()
            self._visitors.discard(visitor)

    async def connect(self, host: str, origins: Sequence[str], secure: bool, strict: bool) -> Stream:
        """Open a connection to one of the origins, in random order until one accepts.

        Raises EdgeError: 521 refused, 522 no answer in time, 523 no route, 530 name not found,
        525 TLS handshake failed, 526 certificate not valid for `host` (strict).
        """
        port = self.ports.origin_https if secure else self.ports.origin_http
        choice: list[tuple[socket.AddressFamily, Any]] = []
        for origin in secrets.SystemRandom().sample(origins, len(origins)):
            choice += await _addresses(origin, port)
        while True:
            family, address = choice.pop(0)
            try:
                connection = await self._open(family, address)
                break
            except EdgeError:
                if not choice:
                    raise
        context = self.tls.towards_origin(strict=strict, client=self._client()) if secure else None
        tls: dict[str, Any] = {}
        if context:
            tls = {
                "ssl": context,
                "server_hostname": host,
                "ssl_handshake_timeout": self.timing.connect_seconds,
            }
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=CHUNK, **tls)
        except ssl.SSLCertVerificationError as error:
            raise EdgeError(526, f"{address[0]} port {port}: {error.verify_message}") from error
        except OSError as error:
            raise EdgeError(525, f"{address[0]} port {port}: TLS handshake failed: {error}") from error
        return Stream(h11.CLIENT, reader, writer)

    def _client(self) -> bytes | None:
        """Return the client certificate that the origin sees: the zone's own, else the shared one."""
        own = self.zone.origin_pulls.client()
        return own or (self.tls.shared_client if self.zone.on("tls_client_auth") else None)

    async def _open(self, family: socket.AddressFamily, address: Any) -> socket.socket:
        connection = socket.socket(family)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(self.timing.connect_seconds):
                await asyncio.get_running_loop().sock_connect(connection, address)
        except OSError as error:
            connection.close()
            status = {ConnectionRefusedError: 521, TimeoutError: 522}.get(type(error), 523)
            raise EdgeError(status, f"{address[0]} port {address[1]}: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        return connection


async def _addresses(origin: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    """Return where an address or host name leads, best first. Raises EdgeError 530 when it has no address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(origin, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise EdgeError(530, f"the origin's name {origin!r} has no address: {error}") from error
    return [(family, address) for family, _, _, _, address in found]


async def _final_event(origin: Stream) -> Any:
    """Return the origin's next event that is no 100 or 103."""
    while True:
        event = await origin.event()
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
            return event


def _header(request: h11.Request, name: bytes) -> bytes:
    return b", ".join(value for key, value in request.headers if key == name)


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")}


def _host(request: h11.Request) -> str:
    host = _header(request, b"host").decode("latin-1").lower()
    return host.rpartition(":")[0] if re.fullmatch(r".*:\d*", host) else host


def _facts(request: h11.Request, scheme: str, host: str, target: str, address: str) -> dict[str, Any]:
    """Return what rules can ask of a request, by the fields' names."""
    path, _, query = target.partition("?")
    name = path.rpartition("/")[2]
    header = {
        key: _header(request, key.encode()).decode("latin-1") for key in ("cookie", "referer", "user-agent")
    }
    return {
        "http.cookie": header["cookie"],
        "http.host": host,
        "http.referer": header["referer"],
        "http.request.full_uri": f"{scheme}://{host}{target}",
        "http.request.method": request.method.decode(),
        "http.request.uri": target,
        "http.request.uri.path": path,
        "http.request.uri.path.extension": name.rpartition(".")[2].lower() if "." in name else "",
        "http.request.uri.query": query,
        "http.user_agent": header["user-agent"],
        "ip.src": address,
        "ssl": scheme == "https",
    }


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _response_headers(
    headers: Iterable[tuple[bytes, bytes]], ray: str, cache_status: str = "DYNAMIC"
) -> Headers:
    """Return an answer's headers less hop-by-hop ones, signed as the edge's."""
    own = HOP_BY_HOP | {b"server", b"cf-ray", b"cf-cache-status"}
    kept = [(name, value) for name, value in headers if name.lower() not in own]
    return [
        *kept,
        (b"Server", b"cloudflare"),
        (b"CF-RAY", ray.encode()),
        (b"CF-Cache-Status", cache_status.encode()),
    ]


def _error_page(status: int, ray: str) -> bytes:
    title = f"{status}: {REASONS.get(status, 'Error')}"
    return (
        f"<!DOCTYPE html>\n<html lang=en><title>{title}</title>\n<h1>Error {title}</h1>\n"
        f"<p>Cloudflare Ray ID: <strong>{ray}</strong> &bull; emulated</p>\n</html>\n"
    ).encode()
