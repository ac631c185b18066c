"""The part of Cloudflare's v4 API that the roles call: routes, token checks, envelopes, faults, a journal."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import math
import re
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emulator.zone import ApiError, Zone, now

PREFIX = "/client/v4"
JOURNAL_LENGTH = 10_000
TOKEN = re.compile(r"[A-Za-z0-9_-]{40,}")
STANDINGS = ("active", "disabled", "expired")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# An emulated edge is on a private network, where Cloudflare's real ranges would let nobody in.
PRIVATE_RANGES = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
# The operators that a name filter of the zone list takes, as in name=contains:example.
NAME_FILTERS: dict[str, Callable[[str, str], bool]] = {
    "equal": str.__eq__,
    "not_equal": str.__ne__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}

log = logging.getLogger(__name__)


@dataclass
class Fault:
    """An answer that a test asks for in place of the real one, for the next `times` requests that match."""

    path: str = ""
    method: str = ""
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay: float = 0

    @classmethod
    def read(cls, wanted: Mapping[str, Any]) -> Fault:
        """Check and read a fault. Raises ValueError naming what is wrong."""
        known = cls.__dataclass_fields__
        if unknown := wanted.keys() - known.keys():
            raise ValueError(f"a fault takes {', '.join(known)}, not {', '.join(sorted(unknown))}")
        fault = cls(**wanted)
        if fault.status is not None and not (isinstance(fault.status, int) and 200 <= fault.status <= 599):
            raise ValueError(f"fault: status {fault.status!r} is no HTTP status from 200 to 599")
        if not isinstance(fault.delay, int | float) or fault.delay < 0:
            raise ValueError(f"fault: delay {fault.delay!r} is no number of seconds")
        try:
            re.compile(fault.path)
        except re.error as error:
            raise ValueError(f"fault: path {fault.path!r} is no regular expression: {error}") from error
        return fault

    def matches(self, method: str, path: str) -> bool:
        """Tell whether the next request is to be answered by this fault."""
        return self.times > 0 and self.method in ("", method) and re.search(self.path, path) is not None


Handler = Callable[[Request, str, Any], dict[str, Any]]


class Api:
    """Answers requests below /client/v4 as Cloudflare does, for one zone and one token."""

    def __init__(self, zone: Zone, token: str, ip_ranges: Sequence[str] = PRIVATE_RANGES) -> None:
        self.zone = zone
        self.standing = "active"
        self.journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_LENGTH)
        self.faults: list[Fault] = []
        self._token = token
        self._ip_ranges = ip_ranges
        zone_path = r"/zones/(?P<zone>[^/]*)"
        routes: dict[str, dict[str, Handler]] = {
            r"/zones": {"GET": self._zones},
            zone_path: {"GET": self._zone},
            zone_path + r"/settings/(?P<name>[^/]+)": {"GET": self._setting, "PATCH": self._set},
            zone_path + r"/dns_records": {"GET": self._dns_records},
            r"/user/tokens/verify": {"GET": self._verify},
            r"/ips": {"GET": self._ips},
        }
        self._routes = [(re.compile(pattern), handlers) for pattern, handlers in routes.items()]

    async def __call__(self, request: Request) -> Response:
        """Answer one request and write it to the journal; the token never gets there."""
        body = await request.body()
        path = unquote(request.url.path).removeprefix(PREFIX)
        response = await self._fault(request.method, path) or self._answer(request, path, body)
        response.headers["server"] = "cloudflare"
        response.headers["cf-ray"] = f"{secrets.token_hex(8)}-EMU"
        self.journal.append(self._entry(request, path, body, response.status_code))
        log.info("%s %s%s %d", request.method, PREFIX, self._redacted(path), response.status_code)
        return response

    def _answer(self, request: Request, path: str, body: bytes) -> Response:
        try:
            return JSONResponse({**self._route(request, path, body), "success": True, "errors": []})
        except ApiError as error:
            entry: dict[str, Any] = {"code": error.code, "message": error.message}
            if error.chain:
                entry["error_chain"] = [{"code": code, "message": text} for code, text in error.chain]
            envelope = {"result": error.result, "success": False, "errors": [entry], "messages": []}
            return JSONResponse(envelope, error.status)

    def _route(self, request: Request, path: str, body: bytes) -> dict[str, Any]:
        routes = ((pattern.fullmatch(path), handlers) for pattern, handlers in self._routes)
        match, handlers = next((route for route in routes if route[0]), (None, {}))
        if match is None:
            raise ApiError(404, 7000, "No route for that URI")
        handler = handlers.get(request.method)
        if handler is None:
            raise ApiError(405, 10405, "Method not allowed")
        if path != "/ips":
            self._check_token(request, path)
        found = match.groupdict()
        if found.get("zone", self.zone.id) != self.zone.id:
            raise ApiError(
                404, 7003, f"Could not route to {PREFIX}{path}, perhaps your object identifier is invalid?"
            )
        content: Any = None
        if request.method != "GET":
            try:
                content = json.loads(body)
            except ValueError:
                raise ApiError(400, 6007, "Malformed JSON in request body") from None
        answer: dict[str, Any] = {"messages": []}
        return answer | handler(request, found.get("name", ""), content)

    async def _fault(self, method: str, path: str) -> Response | None:
        fault = next((fault for fault in self.faults if fault.matches(method, path)), None)
        if fault is None:
            return None
        fault.times -= 1
        await asyncio.sleep(fault.delay)
        if fault.status is None:
            return None
        if isinstance(fault.body, str):
            return Response(fault.body, fault.status, fault.headers)
        return JSONResponse(fault.body, fault.status, fault.headers)

    # The token.

    def _check_token(self, request: Request, path: str) -> None:
        """Refuse a request without a valid token in the words of the service that it asks for."""
        headers = request.headers
        verifying = path == "/user/tokens/verify"
        if "authorization" not in headers:
            if "x-auth-key" in headers or "x-auth-email" in headers:
                chain = [(6103, "Invalid format for X-Auth-Key header")]
                raise ApiError(400, 6003, "Invalid request headers", chain)
            if verifying:
                raise ApiError(400, 1001, 'Missing "Authorization" header')
            raise ApiError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
        scheme, _, token = headers["authorization"].partition(" ")
        if scheme.lower() != "bearer" or not TOKEN.fullmatch(token):
            chain = [(6111, "Invalid format for Authorization header")]
            raise ApiError(400, 6003, "Invalid request headers", chain)
        known = hmac.compare_digest(token, self._token)
        if known and (verifying or self.standing == "active"):
            return
        if verifying:
            raise ApiError(401, 1000, "Invalid API Token")
        if path.endswith("/dns_records"):
            raise ApiError(401, 10000, "Authentication error")
        raise ApiError(403, 9109, "Invalid access token")

    def _verify(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        ending = "valid and active" if self.standing == "active" else self.standing
        return {
            "result": {"id": self.zone.token_id, "status": self.standing},
            "messages": [{"code": 10000, "message": f"This API Token is {ending}", "type": None}],
        }

    # The zone.

    def _zones(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        query = request.query_params
        wanted = query.get("name")
        zones = [self.zone.describe()]
        if wanted is not None:
            operator, colon, operand = wanted.partition(":")
            test = NAME_FILTERS.get(operator) if colon else str.__eq__
            zones = [
                zone for zone in zones if test and test(zone["name"], (operand if colon else wanted).lower())
            ]
        zones = [
            zone
            for zone in zones
            if query.get("status") in (None, zone["status"])
            and query.get("account.id") in (None, zone["account"]["id"])
        ]
        return self._page(request, zones, per_page=20)

    def _zone(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        return {"result": self.zone.describe()}

    def _setting(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        return {"result": self.zone.setting(name)}

    def _set(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        value = content.get("value") if isinstance(content, dict) else None
        return {"result": self.zone.change_setting(name, value)}

    def _dns_records(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        query = request.query_params
        wanted = {
            key: (query.get(key) or query.get(f"{key}.exact") or "").lower()
            for key in ("type", "name", "content", "proxied")
        }
        records = [
            record
            for record in self.zone.records
            if all(not value or str(record[key]).lower() == value for key, value in wanted.items())
        ]
        return self._page(request, records, per_page=100)

    def _page(self, request: Request, items: list[dict[str, Any]], per_page: int) -> dict[str, Any]:
        try:
            page = int(request.query_params.get("page", 1))
            size = int(request.query_params.get("per_page", per_page))
        except ValueError:
            page = size = 0
        if page < 1 or size < 1:
            raise ApiError(400, 6003, "Invalid request parameters")
        shown = items[(page - 1) * size : page * size]
        info = {
            "page": page,
            "per_page": size,
            "count": len(shown),
            "total_count": len(items),
            "total_pages": math.ceil(len(items) / size),
        }
        return {"result": shown, "result_info": info}

    def _ips(self, request: Request, name: str, content: Any) -> dict[str, Any]:
        ranges = sorted(self._ip_ranges)
        return {
            "result": {
                "ipv4_cidrs": [cidr for cidr in ranges if ":" not in cidr],
                "ipv6_cidrs": [cidr for cidr in ranges if ":" in cidr],
                "etag": hashlib.sha256("\n".join(ranges).encode()).hexdigest()[:32],
            }
        }

    # The journal.

    def _entry(self, request: Request, path: str, body: bytes, status: int) -> dict[str, Any]:
        text = self._redacted(body.decode(errors="replace"))
        try:
            content = json.loads(text) if text else None
        except ValueError:
            content = text
        return {
            "time": now(),
            "method": request.method,
            "path": self._redacted(PREFIX + path),
            "query": {key: self._redacted(value) for key, value in request.query_params.items()},
            "body": content,
            "status": status,
        }

    def _redacted(self, text: str) -> str:
        return text.replace(self._token, "[token]")

    def reset(self) -> None:
        """Forget journal and faults; the token is active again."""
        self.journal.clear()
        self.faults.clear()
        self.standing = "active"

    def describe(self) -> dict[str, Any]:
        """Return what a test may want to know of the API itself."""
        return {"token": self.standing, "faults": [asdict(fault) for fault in self.faults]}
