"""The edge's requests in Cloudflare's GraphQL API: httpRequestsAdaptiveGroups, by hour.

A request is counted once it has ended, so a WebSocket appears only after it closed, in the hour it began.
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

# The widest time range of a query by plan: the limit in Cloudflare's error message on the free plan.
MAX_RANGE = {"free": dt.timedelta(days=1)}
MAX_RECORDS = 200_000
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
class RequestRecord:
    """Requests with the same start time, HTTP status, host and path, and their number."""

    time: dt.datetime
    status: int
    host: str = ""
    path: str = "/"
    count: int = 1


class Traffic:
    """The requests that have ended, and the GraphQL query over them."""

    def __init__(self, zone_id: str, plan: Callable[[], str], permitted: Callable[[], bool]) -> None:
        self._zone_id = zone_id
        self._plan = plan
        self._permitted = permitted
        self._records: deque[RequestRecord] = deque(maxlen=MAX_RECORDS)

    def clear(self) -> None:
        """Remove all requests."""
        self._records.clear()

    def add(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        self._records.append(record)

    def put(self, wanted: list[dict[str, Any]]) -> None:
        """Replace all requests by {time, status, count, host, path}. Raises ValueError, without a change."""
        created = []
        for number, item in enumerate(wanted):
            try:
                record = RequestRecord(**{**item, "time": _time(item["time"])})
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"request {number}: {error!r}; the fields are time (ISO 8601), status, count, host, path"
                ) from None
            created.append(record)
        self._records.clear()
        self._records.extend(created)

    def routes(self) -> list[Route]:
        """Return the route. It needs no permission: GraphQL reports missing permissions in its response."""
        return [Route("/graphql", needs(), {"POST": self._query}, "graphql")]

    def _query(self, call: Call) -> dict[str, Any]:
        """Execute a query; the response has data or errors, without Cloudflare's envelope."""
        wanted = call.fields
        if not isinstance(wanted.get("query"), str):
            raise ApiError(400, 1000, "the body must contain a query")
        result = graphql.graphql_sync(
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
            for error in result.errors or []
        ]
        return {"data": None if errors else result.data, "errors": errors or None}

    def _zones(
        self, info: graphql.GraphQLResolveInfo[Any], filter: Mapping[str, Any] | None = None, limit: int = 1
    ) -> list[dict[str, Any]]:
        """Return the zone that the filter names, if the token may read its analytics."""
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
        """Return the numbers of requests, grouped by the dimensions that the query selects."""
        wanted = filter or {}
        self._check_range(wanted)
        dimensions = _dimensions(info)
        counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
        for record in self._records:
            if _matches(record, wanted):
                fields = {
                    "datetimeHour": f"{record.time:%Y-%m-%dT%H}:00:00Z",
                    "edgeResponseStatus": record.status,
                    "clientRequestHTTPHost": record.host,
                    "clientRequestPath": record.path,
                }
                counts[tuple((name, fields[name]) for name in fields if name in dimensions)] += record.count
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

    def _check_range(self, wanted: Mapping[str, Any]) -> None:
        start = next((_time(wanted[key]) for key in ("datetime_geq", "datetime_gt") if key in wanted), None)
        end = next((_time(wanted[key]) for key in ("datetime_leq", "datetime_lt") if key in wanted), None)
        if start is None:
            raise graphql.GraphQLError("filter: use datetime_geq or datetime_gt")
        width = (end or dt.datetime.now(dt.UTC)) - start
        max_range = MAX_RANGE.get(self._plan(), dt.timedelta(days=3))
        if width > max_range:
            raise graphql.GraphQLError(
                f"zone {self._zone_id!r} cannot request a time range wider than {max_range}, this is {width}"
            )


def _time(text: str) -> dt.datetime:
    """Parse an ISO 8601 time with its time zone and return it in UTC. Raises ValueError."""
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: append Z for UTC")
    return time.astimezone(dt.UTC)


def _matches(record: RequestRecord, wanted: Mapping[str, Any]) -> bool:
    """Whether a record matches a filter of the query."""
    tests: dict[str, Callable[[Any], bool]] = {
        "AND": lambda filters: all(_matches(record, part) for part in filters),
        "datetime_geq": lambda time: record.time >= _time(time),
        "datetime_gt": lambda time: record.time > _time(time),
        "datetime_leq": lambda time: record.time <= _time(time),
        "datetime_lt": lambda time: record.time < _time(time),
        "edgeResponseStatus": lambda status: record.status == status,
        "edgeResponseStatus_in": lambda statuses: record.status in statuses,
        "clientRequestHTTPHost": lambda host: record.host == host,
        "clientRequestPath": lambda path: record.path == path,
        "clientRequestPath_like": lambda pattern: fnmatch.fnmatchcase(record.path, pattern.replace("%", "*")),
        # Cloudflare's name for a request by a visitor, as all are here.
        "requestSource": lambda source: source == "eyeball",
    }
    return all(tests[key](value) for key, value in wanted.items() if value is not None)


def _dimensions(info: graphql.GraphQLResolveInfo[Any]) -> set[str]:
    """Return the names of the dimensions that a query selects."""
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
