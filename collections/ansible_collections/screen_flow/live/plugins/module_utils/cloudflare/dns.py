"""The address records of names: A, AAAA and CNAME. All other records are left alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .client import Call, CloudflareApi, CloudflareFailure, Zone, invalid_input
from .resource import Resource

PERMISSION = "DNS Write"
TYPES = ("A", "AAAA", "CNAME")
AUTOMATIC_TTL = 1  # what Cloudflare gives every proxied record
ATTEMPTS = 3
# A record that the batch changes is gone, or one that it adds exists: another client wrote in between.
CONFLICT_CODES = {81044, 81053, 81054, 81057, 81058}


def validate_dns(names: Sequence[Mapping[str, Any]], zone: str) -> None:
    """Raise CloudflareFailure for records that are not valid, before any request."""
    for dns in names:
        if [one["name"] for one in names].count(dns["name"]) > 1:
            raise invalid_input(f"dns has {dns['name']} twice: put all records of a name into one entry.")
        _validate_name(dns, zone)


def _validate_name(dns: Mapping[str, Any], zone: str) -> None:
    types = [record["type"] for record in dns["records"]]
    if "CNAME" in types and len(types) > 1:
        raise invalid_input(
            f"dns gives {dns['name']} a CNAME and other records: a CNAME must be the only one."
        )
    for record in dns["records"]:
        try:
            address = ipaddress.ip_address(record["content"])
            fitting = "A" if address.version == 4 else "AAAA"
        except ValueError:
            fitting = "CNAME"
        if fitting != record["type"]:
            raise invalid_input(
                f"dns has the content '{record['content']}' for a record of type {record['type']}: A takes "
                "an IPv4 address, AAAA an IPv6 address, CNAME a host name."
            )
    if zone and dns["name"] != zone and not dns["name"].endswith("." + zone):
        raise invalid_input(f"dns names '{dns['name']}': use a name in the zone {zone}.")


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that are compared, the address in its canonical form."""
    content = str(record["content"]).lower().rstrip(".")
    if record["type"] in ("A", "AAAA"):
        content = str(ipaddress.ip_address(content))
    proxied = record.get("proxied") is not False
    ttl = AUTOMATIC_TTL if proxied else record.get("ttl") or AUTOMATIC_TTL
    return {"type": record["type"], "content": content, "proxied": proxied, "ttl": ttl}


def sorted_records(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the compared fields of each record, in one order, so that two lists compare."""
    return sorted(map(comparable, records), key=lambda record: (record["type"], record["content"]))


def batch(
    name: str, found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the body of one transaction that brings the records from found to wanted; empty for no change.

    A record keeps its id where possible, and with it its comment and tags. A record whose type changes is
    deleted and created within the transaction, so the name is never without a record.
    """
    spare, missing = list(found), []
    for record in wanted:
        same = next((old for old in spare if comparable(old) == record), None)
        spare.remove(same) if same else missing.append(record)
    patches, posts = [], []
    for record in missing:
        old = min(
            (old for old in spare if old["type"] == record["type"]),
            key=lambda old: comparable(old)["content"] != record["content"],
            default=None,
        )
        if old:
            spare.remove(old)
            patches.append({"id": old["id"], "name": name, **record})
        else:
            posts.append({"name": name, **record})
    body = {"deletes": [{"id": old["id"]} for old in spare], "patches": patches, "posts": posts}
    return {part: entries for part, entries in body.items() if entries}


class Dns:
    """The A, AAAA and CNAME records of each name in `wanted`: these and no others."""

    key = "dns"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: Sequence[Mapping[str, Any]]) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/dns_records"
        self._wanted = {str(one["name"]): sorted_records(one["records"]) for one in wanted}
        self._found: dict[str, list[dict[str, Any]]] = {}
        self.warnings: list[str] = []

    def read(self) -> list[Resource]:
        """Read the records of each name."""
        self._found = {name: self._fetch(name) for name in self._wanted}
        return [
            Resource(f"DNS of {name}", sorted_records(self._found[name]), wanted, partial(self._write, name))
            for name, wanted in self._wanted.items()
        ]

    def permission_probes(self) -> list[Call]:
        """Return an empty batch."""
        purpose = "check the permission to write DNS records"
        return [Call("post", f"{self._path}/batch", purpose, PERMISSION, body={"posts": []})]

    def state(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the records in the form of the module's argument."""
        return [{"name": name, "records": values[f"DNS of {name}"]} for name in self._wanted]

    def _fetch(self, name: str) -> list[dict[str, Any]]:
        purpose = f"read the DNS records of {name}"
        query = {"name.exact": name, "per_page": "100"}
        found = self._api.call(Call("get", self._path, purpose, PERMISSION, query))
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise self._api.unexpected(purpose)
        return [record for record in found if record.get("type") in TYPES]

    def _write(self, name: str) -> list[dict[str, Any]]:
        wanted = self._wanted[name]
        for attempt in range(1, ATTEMPTS + 1):
            body = batch(name, self._found[name], wanted)
            if not body:
                return wanted
            purpose = f"write the DNS records of {name}"
            try:
                self._api.call(Call("post", f"{self._path}/batch", purpose, PERMISSION, body=body))
            except CloudflareFailure as failure:
                if attempt == ATTEMPTS or not failure.codes & CONFLICT_CODES:
                    raise
                self.warnings.append(f"Another client changed the DNS records of {name} during this run.")
                self._found[name] = self._fetch(name)
            else:
                return wanted
        raise AssertionError("the last attempt returns or raises")
