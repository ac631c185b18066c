"""The control API, outside Cloudflare's namespace: what a test or a demo reads and sets directly.

Below /_emulator; changes answer with the new state, bad bodies with 400 {"detail": "sentence"}:

GET    state          zone, settings, dns, edge, token, faults
PATCH  settings       {"ssl": "full", "websockets": {"value": "on", "editable": false}}, past plan and token
PUT    dns            [{"type": "A", "name": …, "content": …, "proxied": true}], in place of all records
PUT    plan           {"plan": "free" | "pro" | "business" | "enterprise"}
PUT    token          {"status": "active" | "disabled" | "expired"}
PUT    faults         [{"method", "path" (a regex), "times", "status", "headers", "body", "delay"}]
PATCH  edge           {"idle_seconds": 5, "connect_seconds": 2}, for open tunnels too
POST   edge/cut       drops every connection of the edge now; {"cut": how many}
GET    journal        requests below /client/v4: time, method, path, query, body, status; DELETE clears it
POST   reset          the fresh zone again, same identifier; no journal, no faults
GET    edge-ca.pem    the authority that visitors trust; origin-ca.pem: the one that Full (strict) accepts
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from emulator.api import METHODS, PREFIX, STANDINGS, Api, Fault
from emulator.edge import Edge
from emulator.zone import SETTINGS, Zone


def application(zone: Zone, api: Api, edge: Edge) -> Starlette:
    """Return the ASGI application of port 8480: Cloudflare's API, /_emulator and /healthz.

    A control request with a bad body gets 400 {"detail": "sentence"} and changes nothing.
    """

    def state() -> dict[str, Any]:
        return {
            "zone": {"id": zone.id, "name": zone.name, "plan": zone.plan},
            "settings": {name: zone.setting(name) for name in SETTINGS},
            "dns": zone.records,
            "edge": edge.describe(),
            **api.describe(),
        }

    def pick(body: Any, key: str) -> Any:
        if not isinstance(body, dict) or body.keys() != {key}:
            raise ValueError(f'the body is {{"{key}": …}}, not {body!r}')
        return body[key]

    def mapping(body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise ValueError(f"the body is an object, not {body!r}")
        return body

    def objects(body: Any) -> list[dict[str, Any]]:
        if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
            raise ValueError(f"the body is a list of objects, not {body!r}")
        return body

    def token(status: Any) -> None:
        if status not in STANDINGS:
            raise ValueError(f"token status {status!r} is not one of {', '.join(STANDINGS)}")
        api.standing = status

    def faults(body: Any) -> None:
        api.faults[:] = [Fault.read(item) for item in objects(body)]

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
        Route("/dns", change(lambda body: zone.put_dns(objects(body))), methods=["PUT"]),
        Route("/plan", change(lambda body: zone.put_plan(pick(body, "plan"))), methods=["PUT"]),
        Route("/token", change(lambda body: token(pick(body, "status"))), methods=["PUT"]),
        Route("/faults", change(faults), methods=["PUT"]),
        Route("/edge", change(lambda body: edge.configure(mapping(body))), methods=["PATCH"]),
        Route("/edge/cut", read(lambda: {"cut": edge.cut()}), methods=["POST"]),
        Route("/reset", read(reset), methods=["POST"]),
        Route("/journal", read(lambda: list(api.journal)), methods=["GET"]),
        Route("/journal", read(cleared), methods=["DELETE"]),
        Route("/edge-ca.pem", read(lambda: pem(edge.tls.edge_ca.pem))),
        Route("/origin-ca.pem", read(lambda: pem(edge.tls.origin_ca.pem))),
    ]
    return Starlette(
        routes=[
            Route(PREFIX + "/{path:path}", api.__call__, methods=METHODS),
            Route("/healthz", read(lambda: {"status": "ok"})),
            Mount("/_emulator", routes=control),
        ]
    )
