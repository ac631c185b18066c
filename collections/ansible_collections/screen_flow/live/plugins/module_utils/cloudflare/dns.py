"""The DNS records that lead visitors to one name: its A, AAAA and CNAME. All others are left alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from .client import Call, CloudflareApi, CloudflareFailure, Zone, unusable
from .resource import Thing

NEEDS = "DNS Write"
TYPES = ("A", "AAAA", "CNAME")
AUTOMATIC = 1  # the time to live of what is proxied: Cloudflare decides it
ATTEMPTS = 3
# A record that the batch names is gone; one that it adds is there.
CHANGED_CODES = {81044, 81053, 81054, 81057, 81058}


def check_dns(dns: Mapping[str, Any], zone: str) -> None:
    """Raise CloudflareFailure for records that can't be, before anything is asked."""
    kinds = [record["type"] for record in dns["records"]]
    if "CNAME" in kinds and len(kinds) > 1:
        raise CloudflareFailure(f"dns gives {dns['name']} a CNAME beside other records: give it alone.")
    for record in dns["records"]:
        try:
            address = ipaddress.ip_address(record["content"])
            kind = "A" if address.version == 4 else "AAAA"
        except ValueError:
            kind = "CNAME"
        if kind != record["type"]:
            raise CloudflareFailure(
                f"dns has the content '{record['content']}' for a record of type {record['type']}: A takes "
                "an IPv4 address, AAAA an IPv6 address, CNAME a host name."
            )
    if zone and dns["name"] != zone and not dns["name"].endswith("." + zone):
        raise CloudflareFailure(f"dns names '{dns['name']}': give a name in the zone {zone}.")


def in_short(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a record is compared, the address in its one canonical form."""
    content = str(record["content"]).lower().rstrip(".")
    if record["type"] in ("A", "AAAA"):
        content = str(ipaddress.ip_address(content))
    proxied = record.get("proxied") is not False
    ttl = AUTOMATIC if proxied else record.get("ttl") or AUTOMATIC
    return {"type": record["type"], "content": content, "proxied": proxied, "ttl": ttl}


def in_order(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records in short and in one order, so that two lists compare."""
    return sorted(map(in_short, records), key=lambda record: (record["type"], record["content"]))


def batch(
    name: str, found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the body that brings the records from found to wanted: all of it is done, or nothing.

    A record keeps its id where it can, and with it its comment and tags. One of another type is removed and
    made anew, which Cloudflare does within one transaction, so the name is never without a record.
    """
    spare, missing = list(found), []
    for record in wanted:
        same = next((old for old in spare if in_short(old) == record), None)
        spare.remove(same) if same else missing.append(record)
    patches, posts = [], []
    for record in missing:
        old = min(
            (old for old in spare if old["type"] == record["type"]),
            key=lambda old: in_short(old)["content"] != record["content"],
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
    """The A, AAAA and CNAME records of `wanted["name"]`: these and no others."""

    key = "dns"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: Mapping[str, Any]) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/dns_records"
        self._name = str(wanted["name"])
        self._wanted = in_order(wanted["records"])
        self._found: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def read(self) -> list[Thing]:
        """Read the name's records."""
        self._found = self._fetch()
        return [Thing(f"DNS of {self._name}", in_order(self._found), self._wanted, self._write)]

    def trials(self) -> list[Call]:
        """Return an empty batch."""
        what = "try the permission to write DNS records"
        return [Call("post", f"{self._path}/batch", what, NEEDS, body={"posts": []})]

    def state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the records in the form of the module's argument."""
        return {"name": self._name, "records": values[f"DNS of {self._name}"]}

    def _fetch(self) -> list[dict[str, Any]]:
        what = f"read the DNS records of {self._name}"
        query = {"name.exact": self._name, "per_page": "100"}
        found = self._api.call(Call("get", self._path, what, NEEDS, query))
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise CloudflareFailure(unusable(what, self._api.base_url))
        return [record for record in found if record.get("type") in TYPES]

    def _write(self) -> list[dict[str, Any]]:
        for attempt in range(1, ATTEMPTS + 1):
            body = batch(self._name, self._found, self._wanted)
            if not body:
                return self._wanted
            what = f"write the DNS records of {self._name}"
            try:
                self._api.call(Call("post", f"{self._path}/batch", what, NEEDS, body=body))
            except CloudflareFailure as failure:
                if attempt == ATTEMPTS or not failure.codes & CHANGED_CODES:
                    raise
                self.warnings.append(f"Somebody else changed the DNS records of {self._name} meanwhile.")
                self._found = self._fetch()
            else:
                return self._wanted
        raise AssertionError("the last attempt returns or raises")
