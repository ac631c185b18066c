"""The listener: accepts visitors, keeps track of them, and connects them to the origin."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import h11

from emulator.certificates import EdgeTls
from emulator.edge import origin
from emulator.edge.cache import Cache
from emulator.edge.http import CHUNK, HttpStream, VisitorGone
from emulator.edge.visitor import Visitor
from emulator.traffic import RequestRecord
from emulator.zone import Zone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ports:
    """TCP ports: where redirects send visitors, and where the origin listens."""

    public_http: int = 80
    public_https: int = 443
    origin_http: int = 80
    origin_https: int = 443


@dataclass(frozen=True)
class Timing:
    """How long the edge waits, in seconds.

    Cloudflare documents no idle limit for WebSockets; 100 s is what its users report. It documents 19 s for
    the origin to accept a connection (error 522).
    """

    idle_seconds: float = 100  # on a tunnel without a byte in either direction
    connect_seconds: float = 19  # for the origin to accept a connection


class Edge:
    """Listens for visitors and connects them to the origin."""

    def __init__(
        self,
        zone: Zone,
        tls: EdgeTls,
        ports: Ports | None = None,
        timing: Timing | None = None,
        ended: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        """Make an edge that does not listen yet; `ended` is called with each request that has ended."""
        self.ended = ended
        self.cache = Cache()
        self.zone = zone
        self.tls = tls
        self.ports = ports or Ports()
        self.timing = self._initial_timing = timing or Timing()
        self._visitors: set[Visitor] = set()
        self._servers: list[asyncio.Server] = []
        tls.visitors.sni_callback = self._select_name
        zone.store.on_save.append(self._apply_tls_settings)
        self._apply_tls_settings()

    async def start(self, address: str, https_port: int, http_port: int) -> tuple[int, int]:
        """Listen on both ports (0 takes a free one) and return them, https first. Raises OSError."""
        for port, scheme, context in (
            (https_port, "https", self.tls.visitors),
            (http_port, "http", None),
        ):
            # asyncio rejects a handshake timeout without TLS.
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
        """Drop every connection at once, as an edge restart does; return how many there were."""
        visitors = list(self._visitors)
        for visitor in visitors:
            visitor.abort()
        return len(visitors)

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change timings by name, for open tunnels too. Raises ValueError naming the timing and its value."""
        known = asdict(self.timing)
        for name, seconds in changes.items():
            if name not in known:
                raise ValueError(f"edge: {name!r} is unknown; known: {', '.join(known)}")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 86400:
                raise ValueError(
                    f"edge: {name} takes seconds, more than 0 and less than a day, not {seconds!r}"
                )
        self.timing = replace(self.timing, **changes)
        for visitor in self._visitors:
            if visitor.tunnel:
                visitor.tunnel.check_idle()

    def reset(self) -> None:
        """Restore the initial timings and empty the cache."""
        self.cache.entries.clear()
        self.configure(asdict(self._initial_timing))

    def describe(self) -> dict[str, Any]:
        """Return the timings in seconds and the numbers of open connections and tunnels."""
        tunnels = sum(visitor.tunnel is not None for visitor in self._visitors)
        return {**asdict(self.timing), "connections": len(self._visitors), "tunnels": tunnels}

    def _apply_tls_settings(self) -> None:
        self.tls.accept(str(self.zone.value("min_tls_version")), self.zone.value("tls_1_3") != "off")

    def _select_name(self, connection: object, name: str | None, context: ssl.SSLContext) -> int | None:
        served = name is not None and self.zone.dns.origins(name)
        return None if served else ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE

    async def _serve(self, scheme: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = Visitor(self, HttpStream(h11.SERVER, reader, writer), scheme)
        self._visitors.add(visitor)
        try:
            await visitor.serve()
            writer.close()
            await writer.wait_closed()
        except (OSError, VisitorGone) as error:
            log.debug("%s: connection ended: %r", visitor.ray, error)
        except Exception:
            log.exception("%s: internal error of the edge", visitor.ray)
        finally:
            visitor.abort()
            self._visitors.discard(visitor)

    async def connect(self, host: str, origins: Sequence[str], secure: bool, strict: bool) -> HttpStream:
        """Connect to one of the origins of `host`, with TLS if `secure`, verified if `strict`.

        Raises EdgeError as emulator.edge.origin.connect does.
        """
        port = self.ports.origin_https if secure else self.ports.origin_http
        context = self.tls.towards_origin(strict=strict, client=self._client_pem()) if secure else None
        return await origin.connect(origins, port, self.timing.connect_seconds, context, host)

    def _client_pem(self) -> bytes | None:
        """Return the client certificate for origins and its key as PEM: the zone's own or the shared one."""
        own = self.zone.origin_pulls.client()
        return own or (self.tls.shared_client if self.zone.on("tls_client_auth") else None)
