"""The emulated part of Cloudflare's v4 API: routing, token checks, envelopes, faults and the journal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from emulator.common import ApiError, Call, Route, needs, now
from emulator.faults import Edit, Fault
from emulator.ranges import Ranges
from emulator.tokens import Token
from emulator.traffic import Traffic
from emulator.zone import Zone

PREFIX = "/client/v4"
ZONE_PATH = r"/zones/(?P<zone>[^/]*)"
JOURNAL_LENGTH = 10_000
# Body fields that the journal redacts.
SECRET_FIELDS = {"private_key"}

log = logging.getLogger(__name__)


class Api:
    """Answers requests below /client/v4 as Cloudflare does, for one zone and token. An ASGI application."""

    def __init__(self, zone: Zone, token: str, ip_ranges: Sequence[str] = ()) -> None:
        self.zone = zone
        self.token = Token(token)
        self.journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_LENGTH)
        self.faults: list[Fault] = []
        self.ranges = Ranges(zone.dns, ip_ranges)
        self.traffic = Traffic(zone.id, lambda: zone.plan, lambda: self.token.may("GET", ["Analytics"]))
        routes = [
            Route("/user/tokens/verify", needs(), {"GET": self._verify}, "verify"),
            Route("/user/tokens/(?P<id>[^/]+)", needs("API Tokens"), {"GET": self._token}),
            *zone.routes(ZONE_PATH),
            *self.ranges.routes(),
            *self.traffic.routes(),
        ]
        self._routes = [(re.compile(route.path), route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and add it to the journal, with the token redacted."""
        request = Request(scope, receive)
        body = await request.body()
        path = unquote(request.url.path).removeprefix(PREFIX)
        response = await self._respond(request, path, body)
        status = response.status_code if response else 0
        self.journal.append(self._entry(request, path, body, status))
        log.info("%s %s%s %d", request.method, PREFIX, self.token.redact(path), status)
        if response is None:
            return _cut(send)
        response.headers["server"] = "cloudflare"
        response.headers["cf-ray"] = f"{secrets.token_hex(8)}-EMU"
        await response(scope, receive, send)

    async def _respond(self, request: Request, path: str, body: bytes) -> Response | None:
        """Return the response, or None when a fault cuts the connection."""
        fault = next((fault for fault in self.faults if fault.matches(request.method, path)), None)
        if fault is None:
            return self._answer(request, path, body)
        try:
            for edit in fault.edits:
                self.edit(edit)
        except ValueError as error:
            return JSONResponse({"detail": f"fault: the edit was rejected: {error}"}, 500)
        if fault.applied:
            self._answer(request, path, body)
        await asyncio.sleep(fault.delay)
        if fault.cut:
            return None
        if fault.status is None:
            return self._answer(request, path, body)
        if isinstance(fault.body, str):
            return Response(fault.body, fault.status, fault.headers)
        return JSONResponse(fault.body, fault.status, fault.headers)

    def _answer(self, request: Request, path: str, body: bytes) -> Response:
        try:
            return JSONResponse(
                self._route(request.method, path, request.query_params, body, request.headers)
            )
        except ApiError as error:
            return JSONResponse(error.envelope(), error.status)

    def _route(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes,
        headers: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        """Answer one request; `headers` is None for an edit by another user, whose token is not checked."""
        routes = ((pattern.fullmatch(path), route) for pattern, route in self._routes)
        match, route = next((found for found in routes if found[0]), (None, None))
        if match is None or route is None:
            raise ApiError(404, 7000, "No route for that URI")
        handler = route.handlers.get(method)
        if handler is None:
            raise ApiError(405, 10405, "Method not allowed")
        if headers is not None and route.service != "ips":
            self.token.check(headers, route.service)
        found = match.groupdict()
        if found.get("zone", self.zone.id) != self.zone.id:
            raise ApiError(
                404, 7003, f"Could not route to {PREFIX}{path}, perhaps your object identifier is invalid?"
            )
        call = Call(found, dict(query))
        if headers is not None:
            self.token.permit(method, route.needs(call), route.service)
        if method not in ("GET", "DELETE"):
            try:
                call = Call(found, dict(query), json.loads(body))
            except ValueError:
                raise ApiError(400, 6007, "Malformed JSON in request body") from None
        answer: dict[str, Any] = {"messages": [], "success": True, "errors": []}
        return handler(call) if route.service == "graphql" else answer | handler(call)

    def edit(self, edit: Edit) -> dict[str, Any]:
        """Make a change as another user and return the response; {zone} in its path is the zone's identifier.

        Raises ValueError with the API's errors when it rejects the change.
        """
        url = urlsplit(edit.path.replace("{zone}", self.zone.id))
        body = json.dumps(edit.body).encode()
        try:
            return self._route(edit.method, url.path, dict(parse_qsl(url.query)), body, None)
        except ApiError as error:
            raise ValueError(f"{edit.method} {edit.path}: {json.dumps(error.envelope()['errors'])}") from None

    def _verify(self, call: Call) -> dict[str, Any]:
        status = self.token.status
        ending = "valid and active" if status == "active" else status
        return {
            "result": {"id": self.token.id, "status": status},
            "messages": [{"code": 10000, "message": f"This API Token is {ending}", "type": None}],
        }

    def _token(self, call: Call) -> dict[str, Any]:
        """Return the token's details, which it can read only with the permission API Tokens Read."""
        if call.path_parameters["id"] != self.token.id:
            raise ApiError(404, 1003, "Invalid token identifier")
        policy = {
            "id": self.token.id,
            "effect": "allow",
            "resources": {f"com.cloudflare.api.account.zone.{self.zone.id}": "*"},
            "permission_groups": [
                {"id": hashlib.sha256(name.encode()).hexdigest()[:32], "name": name}
                for name in self.token.permissions
            ],
        }
        return {"result": {"id": self.token.id, "status": self.token.status, "policies": [policy]}}

    def _entry(self, request: Request, path: str, body: bytes, status: int) -> dict[str, Any]:
        redact = self.token.redact
        text = redact(body.decode(errors="replace"))
        try:
            content = json.loads(text) if text else None
        except ValueError:
            content = text
        return {
            "time": now(),
            "method": request.method,
            "path": redact(PREFIX + path),
            "query": {key: redact(value) for key, value in request.query_params.items()},
            "body": _redact(content),
            "status": status,
        }

    def reset(self) -> None:
        """Clear journal, faults and traffic; restore address ranges, token status and permissions."""
        self.journal.clear()
        self.faults.clear()
        self.traffic.clear()
        self.ranges.reset()
        self.token.reset()

    def describe(self) -> dict[str, Any]:
        """Return the API's part of the control API's state."""
        return {
            "token": self.token.describe(),
            "faults": [fault.describe() for fault in self.faults],
            "ranges": self.ranges.all,
        }


def _redact(content: Any) -> Any:
    """Return a body with its secrets redacted."""
    if isinstance(content, dict):
        return {key: "[secret]" if key in SECRET_FIELDS else _redact(value) for key, value in content.items()}
    return [_redact(item) for item in content] if isinstance(content, list) else content


def _cut(send: Send) -> None:
    """Drop the connection without a response."""
    # `send` is a bound method of uvicorn's request cycle, which has the transport; ASGI cannot express this.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("cut")
    transport.abort()
