"""Whom a setting affects: every host of the zone, or the site's hosts alone, by configuration rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .client import Call, CloudflareApi, CloudflareFailure, Reason, Zone
from .dns import PERMISSION as DNS_PERMISSION
from .dns import TYPES
from .resource import Resource

# Of the settings in the guide, those that a configuration rule can set for some hosts.
HOST_SETTINGS = ("ssl", "rocket_loader")
REF = "screen_flow_host_"
PAGE_LENGTH = 1000
SHOWN = 10


def split_by_scope(
    settings: Mapping[str, Any], hosts: Sequence[str], scope: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings of the zone, and the rules for those that `scope` "host" limits to `hosts`.

    For "zone" the rules are absent. Only settings that are named have rules; without hosts there are none.
    """
    limited = {name: settings[name] for name in HOST_SETTINGS if name in settings and hosts}
    if scope == "zone":
        absent = {"phase": "http_config_settings", "state": "absent", "last": True}
        return dict(settings), [{**absent, "ref": REF + name} for name in limited]
    names = " ".join(f'"{host}"' for host in hosts)
    rules = [
        {
            "phase": "http_config_settings",
            "ref": REF + name,
            "description": f"{name} for the site's hosts",
            "action": "set_config",
            "action_parameters": {name: in_rule(name, value)},
            "expression": f"http.host in {{{names}}}",
            # The zone's own rules can override it, as they can override a setting.
            "first": True,
        }
        for name, value in limited.items()
    ]
    return {name: value for name, value in settings.items() if name not in limited}, rules


def in_rule(name: str, value: Any) -> Any:
    """Return a setting's value as a rule has it: SSL modes are words, all else is true or false."""
    if name == "ssl":
        return {False: "off"}.get(value, value)
    return value in (True, "on")


def in_effect(settings: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that the site's hosts have: the zone's, with those of this module's host rules."""
    own = {REF + name: name for name in HOST_SETTINGS}
    found = dict(settings)
    for rule in rules:
        name = own.get(str(rule.get("ref")), "")
        parameters = rule.get("action_parameters") or {}
        if name in parameters and rule.get("enabled", True):
            found[name] = {True: "on", False: "off"}.get(parameters[name], parameters[name])
    return found


def other_hosts(api: CloudflareApi, zone: Zone, own: Sequence[str]) -> list[str]:
    """Return the names of the zone's proxied records, without `own`, sorted; raises CloudflareFailure."""
    purpose = "list the zone's proxied host names"
    names: set[str] = set()
    page = 1
    while True:
        query = {"proxied": "true", "per_page": str(PAGE_LENGTH), "page": str(page)}
        found = api.call(Call("get", f"/zones/{zone.id}/dns_records", purpose, DNS_PERMISSION, query))
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise api.unexpected(purpose)
        names |= {str(record["name"]) for record in found if record.get("type") in TYPES}
        if len(found) < PAGE_LENGTH:
            return sorted(names - set(own))
        page += 1


def affected_hosts(
    api: CloudflareApi, zone: Zone, own: Sequence[str], changing: Sequence[Resource]
) -> list[str] | None:
    """Return the other hosts that the resources `changing` affect, after a notice that names them.

    None where the token may not list them. Raises CloudflareFailure.
    """
    names = ", ".join(resource.name.removeprefix("setting ") for resource in changing)
    zone_wide = f"These settings apply to the whole zone {zone.name}: {names}."
    try:
        hosts = other_hosts(api, zone, own)
    except CloudflareFailure as failure:
        if failure.reason is not Reason.PERMISSION:
            raise
        api.notify(f"{zone_wide} The host names that their change affects are unknown. {failure}")
        return None
    if hosts:
        shown = ", ".join(hosts[:SHOWN])
        more = f" and {len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
        api.notify(
            f"{zone_wide} Their change affects other proxied host names as well: {shown}{more}. "
            f"cloudflare_zone_scope host (option scope) limits {' and '.join(HOST_SETTINGS)} to this site."
        )
    return hosts
