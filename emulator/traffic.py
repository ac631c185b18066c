"""What Cloudflare's GraphQL API tells of the edge's requests: httpRequestsAdaptiveGroups, by hour.

A request is counted once it has ended, so a WebSocket shows only after it closed, at the hour it began in.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import graphql

from emulator.common import ApiError, Call, Route, needs, now

# How far back and how wide a query may reach, by plan: what the free plan's users are told.
WIDEST = {"free": dt.timedelta(days=1)}
REMEMBERED = 200_000
SCHEMA = graphql.build_schema("""
    scalar Time
    scalar string
    scalar uint64
    scalar uint16
    type Query { viewer: viewer }
    type viewer { zones(filter: ZoneFilter, limit: uint64): [zone!]! }
    input ZoneFilter { zoneTag: string, zoneTag_in: [string!] }
    type zone {
      zoneTag: string!
      httpRequestsAdaptiveGroups(
        filter: ZoneHttpRequestsAdaptiveGroupsFilter_InputObject
        limit: uint64!
        orderBy: [ZoneHttpRequestsAdaptiveGroupsOrderBy!]
      ): [ZoneHttpRequestsAdaptiveGroups!]!
    }
    input ZoneHttpRequestsAdaptiveGroupsFilter_InputObject {
      AND: [ZoneHttpRequestsAdaptiveGroupsFilter_InputObject!]
      datetime_geq: Time, datetime_gt: Time, datetime_leq: Time, datetime_lt: Time
      edgeResponseStatus: uint16, edgeResponseStatus_in: [uint16!]
      clientRequestHTTPHost: string, clientRequestPath: string, clientRequestPath_like: string
      requestSource: string
    }
    enum ZoneHttpRequestsAdaptiveGroupsOrderBy {
      datetimeHour_ASC datetimeHour_DESC count_ASC count_DESC
    }
    type ZoneHttpRequestsAdaptiveGroups {
      count: uint64!
      dimensions: ZoneHttpRequestsAdaptiveGroupsDimensions!
    }
    type ZoneHttpRequestsAdaptiveGroupsDimensions {
      datetimeHour: Time!
      edgeResponseStatus: uint16!
      clientRequestHTTPHost: string!
      clientRequestPath: string!
    }
""")


@dataclass(frozen=True)
class Seen:
    """Requests of one kind: when they began, what they asked for, how the edge answered, how many."""

    time: dt.datetime
    status: int
    host: str = ""
    path: str = "/"
    count: int = 1


class Traffic:
    """The requests that have ended, and the query for them."""

    def __init__(self, zone_id: str, plan: Callable[[], str], permitted: Callable[[], bool]) -> None:
        self._zone_id = zone_id
        self._plan = plan
        self._permitted = permitted
        self._seen: deque[Seen] = deque(maxlen=REMEMBERED)

    def clear(self) -> None:
        """Forget all requests."""
        self._seen.clear()

    def add(self, seen: Seen) -> None:
        """Count a request that has ended."""
        self._seen.append(seen)

    def put(self, wanted: list[dict[str, Any]]) -> None:
        """Replace all by {time, status, count, host, path}. Raises ValueError and changes nothing."""
        made = []
        for number, item in enumerate(wanted):
            try:
                seen = Seen(**{**item, "time": _time(item["time"])})
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"request {number}: {error!r}; give time (ISO 8601), status, count, host, path"
                ) from None
            made.append(seen)
        self._seen.clear()
        self._seen.extend(made)

    def routes(self) -> list[Route]:
        """Return the one route. GraphQL says in its answer what a token may not see, so it needs nothing."""
        return [Route("/graphql", needs(), {"POST": self._query}, "graphql")]

    def _query(self, call: Call) -> dict[str, Any]:
        """Answer a query as GraphQL does: HTTP 200 with data or errors, without Cloudflare's envelope."""
        wanted = call.fields
        if not isinstance(wanted.get("query"), str):
            raise ApiError(400, 1000, "the body has no query")
        done = graphql.graphql_sync(
            SCHEMA,
            wanted["query"],
            root_value={"viewer": {"zones": self._zones}},
            variable_values=wanted.get("variables") or {},
            operation_name=wanted.get("operationName"),
        )
        errors = [
            {
                "message": error.message,
                "path": [str(step) for step in error.path] if error.path else None,
                "extensions": {"timestamp": now()},
            }
            for error in done.errors or []
        ]
        return {"data": None if errors else done.data, "errors": errors or None}

    def _zones(
        self, info: graphql.GraphQLResolveInfo[Any], filter: Mapping[str, Any] | None = None, limit: int = 1
    ) -> list[dict[str, Any]]:
        """Return the zone that the filter names, where the token may read its analytics."""
        tags = (filter or {}).get("zoneTag_in") or [(filter or {}).get("zoneTag")]
        if tags != [self._zone_id] or not self._permitted():
            raise graphql.GraphQLError(f"zones {' '.join(map(str, tags))} not authorized for this token")
        return [{"zoneTag": self._zone_id, "httpRequestsAdaptiveGroups": self._groups}]

    def _groups(
        self,
        info: graphql.GraphQLResolveInfo[Any],
        limit: int,
        filter: Mapping[str, Any] | None = None,
        orderBy: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the counted requests by the dimensions that the query asks for."""
        wanted = filter or {}
        self._check_width(wanted)
        asked = _dimensions(info)
        counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
        for seen in self._seen:
            if _fits(seen, wanted):
                shown = {
                    "datetimeHour": f"{seen.time:%Y-%m-%dT%H}:00:00Z",
                    "edgeResponseStatus": seen.status,
                    "clientRequestHTTPHost": seen.host,
                    "clientRequestPath": seen.path,
                }
                counts[tuple((name, shown[name]) for name in shown if name in asked)] += seen.count
        groups: list[dict[str, Any]] = [
            {"count": count, "dimensions": dict(key)} for key, count in counts.items()
        ]
        for order in reversed(orderBy or []):
            name, _, direction = order.rpartition("_")
            groups.sort(
                key=lambda group: group["count"] if name == "count" else group["dimensions"].get(name, ""),
                reverse=direction == "DESC",
            )
        return groups[:limit]

    def _check_width(self, wanted: Mapping[str, Any]) -> None:
        start = next((_time(wanted[key]) for key in ("datetime_geq", "datetime_gt") if key in wanted), None)
        end = next((_time(wanted[key]) for key in ("datetime_leq", "datetime_lt") if key in wanted), None)
        if start is None:
            raise graphql.GraphQLError("filter: give datetime_geq or datetime_gt")
        width = (end or dt.datetime.now(dt.UTC)) - start
        widest = WIDEST.get(self._plan(), dt.timedelta(days=3))
        if width > widest:
            raise graphql.GraphQLError(
                f"zone {self._zone_id!r} cannot request a time range wider than {widest}, this is {width}"
            )


def _time(text: str) -> dt.datetime:
    """Read an ISO 8601 time with its zone. Raises ValueError."""
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it with Z")
    return time.astimezone(dt.UTC)


def _fits(seen: Seen, wanted: Mapping[str, Any]) -> bool:
    """Tell whether requests are among those that a filter wants."""
    tests: dict[str, Callable[[Any], bool]] = {
        "AND": lambda filters: all(_fits(seen, part) for part in filters),
        "datetime_geq": lambda time: seen.time >= _time(time),
        "datetime_gt": lambda time: seen.time > _time(time),
        "datetime_leq": lambda time: seen.time <= _time(time),
        "datetime_lt": lambda time: seen.time < _time(time),
        "edgeResponseStatus": lambda status: seen.status == status,
        "edgeResponseStatus_in": lambda statuses: seen.status in statuses,
        "clientRequestHTTPHost": lambda host: seen.host == host,
        "clientRequestPath": lambda path: seen.path == path,
        "clientRequestPath_like": lambda pattern: fnmatch.fnmatchcase(seen.path, pattern.replace("%", "*")),
        # Every request here comes from a visitor, as Cloudflare calls it.
        "requestSource": lambda source: source == "eyeball",
    }
    return all(tests[key](value) for key, value in wanted.items() if value is not None)


def _dimensions(info: graphql.GraphQLResolveInfo[Any]) -> set[str]:
    """Return the names of the dimensions that a query asks for."""
    names = set()
    for field in info.field_nodes:
        for part in field.selection_set.selections if field.selection_set else ():
            if isinstance(part, graphql.FieldNode) and part.name.value == "dimensions" and part.selection_set:
                names |= {
                    inner.name.value
                    for inner in part.selection_set.selections
                    if isinstance(inner, graphql.FieldNode)
                }
    return names
