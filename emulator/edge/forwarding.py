"""Forwarding of one request to the origin, and of the origin's response to the visitor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import h11

from emulator.edge.cache import MAX_BODY, Cache, Entry, lifetime
from emulator.edge.exchange import Exchange
from emulator.edge.http import HOP_BY_HOP, EdgeError, HttpStream, ResponseHead, VisitorGone
from emulator.edge.origin import request_headers
from emulator.edge.response import deliver, edge_headers
from emulator.zone import Zone

MEGABYTE = 1_000_000  # the unit of max_upload


class Forwarder:
    """Carries one request to the origin and its response back."""

    def __init__(
        self, zone: Zone, cache: Cache, visitor: HttpStream, origin: HttpStream, exchange: Exchange
    ) -> None:
        self._zone = zone
        self._cache = cache
        self._visitor = visitor
        self._origin = origin
        self._exchange = exchange
        self._read_timeout = float(zone.value("proxy_read_timeout"))  # seconds
        self._max_body = upload_limit(zone)

    async def run(self, upgrade: bool) -> bool:
        """Forward the request and its response; True when the connection is now a WebSocket tunnel.

        `upgrade` is True for a WebSocket handshake that the zone lets through. Raises EdgeError, OSError and
        VisitorGone.
        """
        exchange, origin = self._exchange, self._origin
        method, target = exchange.request.method, exchange.request.target
        headers = request_headers(exchange, self._zone, upgrade)
        upload: asyncio.Task[None] | None = None
        try:
            await origin.send(h11.Request(method=method, target=target, headers=headers))
            upload = asyncio.create_task(self._upload())
            if upgrade:
                await upload
            response = await self._response(upload)
            if isinstance(response, h11.InformationalResponse):
                await self._switch_protocols(response)
                return True
            await self._download(response)
            return False
        except (OSError, h11.RemoteProtocolError) as error:
            if self._visitor.http.our_state is not h11.SEND_RESPONSE:
                raise ConnectionAbortedError(f"broken off within the response: {error!r}") from error
            raise EdgeError(520, f"the origin broke the connection: {error!r}") from error
        finally:
            if upload:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self) -> None:
        """Carry the request's body to the origin, as far as the origin takes it.

        Raises EdgeError 413 for a body that exceeds the zone's limit, VisitorGone when it ends early.
        """
        visitor = self._visitor
        size = 0
        try:
            if visitor.http.they_are_waiting_for_100_continue:
                await visitor.send(h11.InformationalResponse(status_code=100, headers=[]))
            while isinstance(event := await visitor.event(), h11.Data):
                size += len(event.data)
                if size > self._max_body:
                    raise body_too_large(self._max_body)
                try:
                    await self._origin.send(h11.Data(data=event.data))
                except OSError:
                    return  # the origin's response, if there is one, gives the reason
        except (OSError, h11.RemoteProtocolError) as error:
            raise VisitorGone(f"within the request's body: {error!r}") from error
        if not isinstance(event, h11.EndOfMessage):
            raise VisitorGone("within the request's body")
        await self._origin.send(h11.EndOfMessage())

    async def _response(self, upload: asyncio.Task[None]) -> h11.Response | h11.InformationalResponse:
        """Return the origin's final response or its 101, which may come before the upload ends.

        Raises EdgeError 524 when the origin does not respond within the read timeout after the upload, 520
        when it closes without a response, and whatever ended the upload.
        """
        response = asyncio.create_task(self._origin.final_response())
        try:
            await asyncio.wait({response, upload}, return_when=asyncio.FIRST_COMPLETED)
            if not response.done():
                upload.result()
            try:
                async with asyncio.timeout(self._read_timeout):
                    event = await response
            except TimeoutError:
                raise EdgeError(524, f"no response from the origin in {self._read_timeout:g} s") from None
        finally:
            response.cancel()
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise EdgeError(520, "the origin closed the connection without a response")
        return event

    async def _switch_protocols(self, response: h11.InformationalResponse) -> None:
        headers = edge_headers(response.headers.raw_items(), self._exchange.ray)
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        self._exchange.status = 101
        await self._visitor.send(
            h11.InformationalResponse(status_code=101, headers=headers, reason=response.reason)
        )

    async def _download(self, response: h11.Response) -> None:
        """Carry the origin's response to the visitor; cache it where the rules and its headers allow it."""
        exchange = self._exchange
        raw = [item for item in response.headers.raw_items() if item[0].lower() not in HOP_BY_HOP]
        fresh_for = 0.0
        if exchange.cache_key:
            fresh_for = lifetime(response.status_code, raw, exchange.cache_settings)
            if not fresh_for:
                exchange.cache_status = "BYPASS"
        kept = bytearray()
        origin_head = ResponseHead(response.status_code, response.reason, raw)
        head = origin_head._replace(headers=edge_headers(raw, exchange.ray, exchange.cache_status))
        await deliver(self._visitor, self._zone, exchange, head, self._body(kept if fresh_for else None))
        if exchange.cache_key and fresh_for and len(kept) <= MAX_BODY:
            entry = Entry(origin_head, bytes(kept), time.monotonic(), fresh_for)
            self._cache.store(exchange.cache_key, entry)

    async def _body(self, kept: bytearray | None) -> AsyncIterator[bytes]:
        """Yield the pieces of the response's body, and copy them to `kept` while they fit into the cache.

        Raises ConnectionAbortedError when the body is incomplete.
        """
        while True:
            async with asyncio.timeout(self._read_timeout):
                event = await self._origin.event()
            if isinstance(event, h11.EndOfMessage):
                return
            if not isinstance(event, h11.Data):
                raise ConnectionAbortedError("the origin closed the connection within its response")
            if kept is not None and len(kept) <= MAX_BODY:
                kept.extend(event.data)
            yield bytes(event.data)


def upload_limit(zone: Zone) -> int:
    """Return how many bytes a request's body may have in this zone."""
    return int(zone.value("max_upload")) * MEGABYTE


def body_too_large(limit: int) -> EdgeError:
    """Return the refusal of a body that exceeds `limit` bytes."""
    return EdgeError(413, f"the body exceeds {limit} bytes")
