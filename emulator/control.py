"""The control API, outside Cloudflare's namespace, for tests and demos.

Paths below /_emulator. A change returns the new state, an invalid body 400 {"detail": message}:

GET    state          zone, settings, dns, rulesets, certificates, origin_pulls, edge, token, faults, ranges
PATCH  settings       {"ssl": "full", "websockets": {"value": "on", "editable": false}}, whatever the plan
PUT    dns            [{"type": "A", "name": …, "content": …, "proxied": true}], replaces all records
PUT    plan           {"plan": "free" | "pro" | "business" | "enterprise"}
PUT    ranges         ["192.0.2.0/24", …], the networks in GET /ips; []: the edge's own addresses
PUT    traffic        [{"time", "status", "count", "host", "path"}], replaces the edge's counts
PUT    token          {"status": "active" | "disabled" | "expired", "permissions": ["Zone Read", …]}, either
                      or both; names end in Read or Write. Permissions are checked before the body
PUT    faults         [{"method", "path" (a regex, below /client/v4), "times", "skip", "edits", "applied",
                      "delay", "cut", "status", "headers", "body"}]. For `times` requests (default 1) that
                      match, after `skip` that pass unchanged, in this order: `edits` as below; with "applied"
                      the request still takes effect; `delay` seconds pass; "cut" closes the connection
                      without a response; `status`, `headers` and `body` (text or JSON) are the response.
                      Without cut and status the real response follows
POST   edits          [{"method", "path", "body"}] below /client/v4, made now as another user: without a token
                      check, not in the journal; {zone} in a path is the zone's identifier. 400 when rejected
PATCH  edge           {"idle_seconds": 5, "connect_seconds": 2}, for open tunnels too
POST   edge/cut       drops every connection of the edge now; returns {"cut": number of connections}
GET    journal        requests below /client/v4: time, method, path, query, body, status (0: cut)
DELETE journal        clears the journal
POST   reset          restores the initial zone with the same identifier; clears journal, faults and traffic
GET    edge-ca.pem    the authority that visitors trust; origin-ca.pem: the one that Full (strict) accepts;
                      origin-pull-ca.pem: the one of the client certificate that all zones share
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from emulator.api import PREFIX, Api
from emulator.edge import Edge
from emulator.faults import Edit, Fault
from emulator.zone import SETTINGS, Zone


def application(zone: Zone, api: Api, edge: Edge) -> ASGIApp:
    """Return the ASGI application of port 8480: Cloudflare's API, /_emulator and /healthz.

    A control request with an invalid body returns 400 {"detail": message} and changes nothing.
    """

    def state() -> dict[str, Any]:
        return {
            "zone": {"id": zone.id, "name": zone.name, "plan": zone.plan},
            "settings": {name: zone.setting(name) for name in SETTINGS},
            "dns": zone.dns.all,
            "rulesets": zone.rulesets.all,
            "certificates": zone.origin_ca.all,
            "origin_pulls": zone.origin_pulls.describe(),
            "edge": edge.describe(),
            **api.describe(),
        }

    def pick(body: Any, key: str) -> Any:
        if not isinstance(body, dict) or body.keys() != {key}:
            raise ValueError(f'the body must be {{"{key}": …}}, not {body!r}')
        return body[key]

    def mapping(body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise ValueError(f"the body must be an object, not {body!r}")
        return body

    def objects(body: Any) -> list[dict[str, Any]]:
        if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
            raise ValueError(f"the body must be a list of objects, not {body!r}")
        return body

    def faults(body: Any) -> None:
        api.faults[:] = [Fault.read(item) for item in objects(body)]

    def edits(body: Any) -> None:
        for edit in [Edit.read(item) for item in objects(body)]:
            api.edit(edit)

    def reset() -> dict[str, Any]:
        zone.reset()
        api.reset()
        edge.reset()
        return state()

    def change(apply: Callable[[Any], None]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                apply(await request.json())
            except (ValueError, TypeError) as error:
                return JSONResponse({"detail": str(error)}, 400)
            return JSONResponse(state())

        return endpoint

    def read(answer: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            result = answer()
            return result if isinstance(result, Response) else JSONResponse(result)

        return endpoint

    def pem(content: bytes) -> Response:
        return Response(content, media_type="application/x-pem-file")

    def cleared() -> Response:
        api.journal.clear()
        return Response(status_code=204)

    control = [
        Route("/state", read(state)),
        Route("/settings", change(lambda body: zone.put_settings(mapping(body))), methods=["PATCH"]),
        Route("/dns", change(lambda body: zone.dns.put(objects(body))), methods=["PUT"]),
        Route("/plan", change(lambda body: zone.put_plan(pick(body, "plan"))), methods=["PUT"]),
        Route("/ranges", change(api.ranges.put), methods=["PUT"]),
        Route("/traffic", change(lambda body: api.traffic.put(objects(body))), methods=["PUT"]),
        Route("/token", change(lambda body: api.token.put(mapping(body))), methods=["PUT"]),
        Route("/faults", change(faults), methods=["PUT"]),
        Route("/edits", change(edits), methods=["POST"]),
        Route("/edge", change(lambda body: edge.configure(mapping(body))), methods=["PATCH"]),
        Route("/edge/cut", read(lambda: {"cut": edge.cut()}), methods=["POST"]),
        Route("/reset", read(reset), methods=["POST"]),
        Route("/journal", read(lambda: list(api.journal)), methods=["GET"]),
        Route("/journal", read(cleared), methods=["DELETE"]),
        Route("/edge-ca.pem", read(lambda: pem(edge.tls.edge_ca.pem))),
        Route("/origin-pull-ca.pem", read(lambda: pem(edge.tls.pull_ca.pem))),
        Route("/origin-ca.pem", read(lambda: pem(edge.tls.origin_ca.pem))),
    ]
    own = Starlette(
        routes=[
            Route("/healthz", read(lambda: {"status": "ok"})),
            Mount("/_emulator", routes=control),
        ]
    )

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's middleware would wrap `send`, and a fault could not cut the connection.
        chosen: ASGIApp = api if scope["path"].startswith(f"{PREFIX}/") else own
        await chosen(scope, receive, send)

    return served
