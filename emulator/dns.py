"""The zone's DNS records: list, create, change, delete, and atomic batches."""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.common import ApiError, Call, Route, StoredList, find, identifier, needs, now, page

# Types that the edge can proxy, and the other types that a zone can have here.
PROXIED_TYPES = ("A", "AAAA", "CNAME")
RECORD_TYPES = (*PROXIED_TYPES, "CAA", "MX", "NS", "SRV", "TXT")
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*")
WRITABLE = {"type", "name", "content", "proxied", "ttl", "comment", "tags", "settings", "priority", "data"}
TTL_SECONDS = (60, 86400)  # the range of a record's ttl (Cloudflare's API description); 1 means automatic


def record_for(name: str, address: str) -> dict[str, Any]:
    """Return a proxied record of `name`: A or AAAA for an address, CNAME for a host name.

    Raises ValueError when `address` is neither.
    """
    try:
        kind = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
    except ValueError:
        if not HOSTNAME.fullmatch(address.lower()) or re.fullmatch(r"[\d.]+", address):
            raise ValueError(f"{address!r} is neither an IP address nor a host name") from None
        kind = "CNAME"
    return {"type": kind, "name": name, "content": address, "proxied": True}


class Records(StoredList):
    """The DNS records of one zone."""

    key = "dns"

    def origins(self, host: str) -> list[str]:
        """Return the contents of the proxied records of `host`, if any: IP addresses or host names."""
        name = host.lower()
        return [
            record["content"]
            for record in self.all
            if record["type"] in PROXIED_TYPES and record["proxied"] and record["name"] == name
        ]

    def put(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replace all records by {type, name, content, proxied}. Raises ValueError, without a change."""
        created: list[dict[str, Any]] = []
        for number, record in enumerate(records):
            try:
                self._add(created, {"proxied": record.get("type") in PROXIED_TYPES, **record})
            except ApiError as error:
                message = "; ".join([error.message, *(text for _, text in error.chain)])
                raise ValueError(f"record {number}: {message}") from None
        self._store.data["dns"] = created
        self._store.save()

    def routes(self, zone: str) -> list[Route]:
        """Return the routes below the zone's path."""
        base = zone + "/dns_records"
        permission = needs("DNS")
        one = {"GET": self._get, "PUT": self._overwrite, "PATCH": self._edit, "DELETE": self._delete}
        return [
            Route(base, permission, {"GET": self._list, "POST": self._create}, "dns"),
            Route(base + "/batch", permission, {"POST": self._batch}, "dns"),
            Route(base + r"/(?P<record>[^/]+)", permission, one, "dns"),
        ]

    def _list(self, call: Call) -> dict[str, Any]:
        keys = ("type", "name", "content", "proxied", "comment")
        wanted = {key: (call.query.get(key) or call.query.get(f"{key}.exact") or "").lower() for key in keys}
        found = [
            record
            for record in self.all
            if all(not value or str(record[key]).lower() == value for key, value in wanted.items())
        ]
        return page(call, found, per_page=100)

    def _get(self, call: Call) -> dict[str, Any]:
        return {"result": _find(self.all, call.path_parameters["record"])}

    def _create(self, call: Call) -> dict[str, Any]:
        records = self.all
        record = self._add(records, call.body)
        self._replace(records)
        return {"result": record}

    def _overwrite(self, call: Call) -> dict[str, Any]:
        records = self.all
        record = self._put(records, {**_fields(call.body), "id": call.path_parameters["record"]})
        self._replace(records)
        return {"result": record}

    def _edit(self, call: Call) -> dict[str, Any]:
        records = self.all
        record = self._patch(records, {**_fields(call.body), "id": call.path_parameters["record"]})
        self._replace(records)
        return {"result": record}

    def _delete(self, call: Call) -> dict[str, Any]:
        records = self.all
        records.remove(_find(records, call.path_parameters["record"]))
        self._replace(records)
        return {"result": {"id": call.path_parameters["record"]}}

    def _batch(self, call: Call) -> dict[str, Any]:
        """Apply deletes, patches, puts and posts in this order, all of them or none."""
        wanted = _fields(call.body)
        kinds = ("deletes", "patches", "puts", "posts")
        if wanted.keys() - set(kinds) or not all(isinstance(wanted.get(kind, []), list) for kind in kinds):
            raise ApiError(400, 9207, "Request body is invalid.")
        records = copy.deepcopy(self.all)
        done: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for item in wanted.get("deletes", []):
            record = _find(records, _fields(item).get("id"))
            records.remove(record)
            done["deletes"].append(record)
        done["patches"] = [self._patch(records, _fields(item)) for item in wanted.get("patches", [])]
        done["puts"] = [self._put(records, _fields(item)) for item in wanted.get("puts", [])]
        done["posts"] = [self._add(records, item) for item in wanted.get("posts", [])]
        self._replace(records)
        return {"result": done}

    def _replace(self, records: list[dict[str, Any]]) -> None:
        self._store.data["dns"] = records
        self._store.save()

    def _add(self, records: list[dict[str, Any]], wanted: Any) -> dict[str, Any]:
        record = {**self._validated(_fields(wanted), records), "id": identifier()}
        record["created_on"] = record["modified_on"]
        records.append(record)
        return record

    def _put(self, records: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any]:
        before = _find(records, wanted.pop("id", None))
        return self._change(records, before, wanted)

    def _patch(self, records: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any]:
        before = _find(records, wanted.pop("id", None))
        kept = {key: value for key, value in before.items() if key in WRITABLE}
        return self._change(records, before, {**kept, **wanted})

    def _change(
        self, records: list[dict[str, Any]], before: dict[str, Any], wanted: dict[str, Any]
    ) -> dict[str, Any]:
        # Since June 2026 Cloudflare does not change a record's type in place.
        if wanted.get("type") != before["type"]:
            raise _refused(9004, "The record type cannot be changed; delete the record and create a new one.")
        others = [record for record in records if record is not before]
        after = {**self._validated(wanted, others), "id": before["id"], "created_on": before["created_on"]}
        records[records.index(before)] = after
        return after

    def _validated(self, wanted: dict[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Validate a record and return it as stored, without an identifier. Raises ApiError."""
        if unknown := sorted(wanted.keys() - WRITABLE):
            raise ApiError(400, 9207, f"Request body is invalid: unknown field {unknown[0]}.")
        kind, name, content = wanted.get("type"), wanted.get("name"), wanted.get("content")
        if kind not in RECORD_TYPES:
            known = ", ".join(RECORD_TYPES)
            raise _refused(9003, f"Invalid 'type' {kind!r}: the emulator supports {known}.")
        name = self._name(name)
        if not isinstance(content, str) or not content:
            raise _refused(9020, "Content is required.")
        _check_content(kind, content)
        proxied = wanted.get("proxied", False)
        if not isinstance(proxied, bool):
            raise _refused(9004, f"proxied must be true or false, not {proxied!r}.")
        if proxied and kind not in PROXIED_TYPES:
            raise _refused(9004, "This record type cannot be proxied.")
        ttl = wanted.get("ttl", 1)
        valid = not isinstance(ttl, bool) and isinstance(ttl, int | float)
        if not valid or not (ttl == 1 or TTL_SECONDS[0] <= ttl <= TTL_SECONDS[1]):
            raise _refused(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")
        if ttl != 1 and proxied:
            ttl = 1  # Cloudflare sets the ttl of proxied records itself
        record = {
            "name": name,
            "type": kind,
            "content": content.lower() if kind in PROXIED_TYPES else content,
            "proxiable": kind in PROXIED_TYPES,
            "proxied": proxied,
            "ttl": ttl,
            "settings": wanted.get("settings") or {},
            "meta": {},
            "data": wanted.get("data") or {},
            "comment": wanted.get("comment") or "",
            "tags": wanted.get("tags") or [],
            "modified_on": now(),
        }
        if kind in ("MX", "SRV"):
            record["priority"] = wanted.get("priority", 0)
        _check_conflicts(record, others)
        return record

    def _name(self, name: object) -> str:
        """Return a record's full name in lower case, with the zone's name added. Raises ApiError."""
        zone = str(self._store.data["name"])
        text = name.lower().rstrip(".") if isinstance(name, str) else ""
        if not text:
            raise _refused(9000, "DNS name is invalid.")
        if text == "@":
            text = zone
        if text != zone and not text.endswith("." + zone):
            text = f"{text}.{zone}"
        if not HOSTNAME.fullmatch(text.removeprefix("*.")):
            raise _refused(9000, "DNS name is invalid.")
        return text


def _fields(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, 9207, "Request body is invalid.")
    return dict(value)


def _find(records: Sequence[dict[str, Any]], wanted: object) -> dict[str, Any]:
    return find(records, wanted, ApiError(404, 81044, "Record does not exist."))


def _refused(code: int, message: str) -> ApiError:
    return ApiError(400, 1004, "DNS Validation Error", [(code, message)])


def _check_content(kind: str, content: str) -> None:
    try:
        fits = record_for("example.com", content)["type"]
    except ValueError:
        fits = ""
    if kind == "A" and fits != "A":
        raise _refused(9005, "Content for A record must be a valid IPv4 address.")
    if kind == "AAAA" and fits != "AAAA":
        raise _refused(9006, "Content for AAAA record must be a valid IPv6 address.")
    if kind == "CNAME" and fits != "CNAME":
        raise _refused(9007, "Content for CNAME record is invalid.")


def _check_conflicts(record: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Check a record against the others of its name. Raises ApiError for a duplicate or a CNAME conflict."""
    for other in others:
        if other["name"] != record["name"]:
            continue
        kind, beside = record["type"], other["type"]
        if (kind, record["content"]) == (beside, other["content"]):
            raise ApiError(400, 81058, "An identical record already exists.")
        if kind == "CNAME" and beside in PROXIED_TYPES:
            raise ApiError(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if kind in ("A", "AAAA") and beside == "CNAME":
            raise ApiError(400, 81054, "A CNAME record with that host already exists.")
