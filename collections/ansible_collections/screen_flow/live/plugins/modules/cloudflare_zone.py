#!/usr/bin/python
"""Ansible module: bring a Cloudflare zone to its wanted state, in one process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_zone
short_description: Manage settings, rules, DNS records and Argo of a Cloudflare zone
description:
  - Reads every named resource, compares it with the wanted value, and writes only what differs. Resources
    that are not named are left alone.
  - Everything is read before the first write. An unknown setting, or one that differs but is locked for
    this zone, fails the task while the zone is unchanged.
  - Before the first write the token's permissions are checked by requests that can't write anything, and
    the message names every permission that it lacks. In check mode a read-only token is enough.
  - Rules are written first, then settings, then DNS records, then Argo. The first write that fails ends the
    task; its message names what was written before it. Every intermediate state serves the site.
options:
  settings:
    description:
      - Names of settings and their values, as in Cloudflare's API.
      - Booleans become V(on) and V(off), and numbers become strings where Cloudflare has strings
        (C(min_tls_version) V(1.2)). Of a setting that is a mapping, keys that are not named keep their
        values.
      - C(min_tls_version) can also be V(>=1.2), which keeps a higher version.
    type: dict
  rules:
    description:
      - Rules in the phases of the zone, each identified by its O(rules[].ref). Other rules keep their
        content and their order.
      - A missing rule is added at the end of its phase, where it overrides those before it.
    type: list
    elements: dict
    suboptions:
      phase:
        description: Phase of the rule, as Cloudflare names it.
        type: str
        required: true
        choices: [http_request_cache_settings, http_config_settings, http_response_compression]
      ref:
        description: Identifier of the rule, unique in its phase.
        type: str
        required: true
      state:
        description: Whether the rule exists.
        type: str
        choices: [present, absent]
        default: present
      action:
        description: Action of the rule, such as V(set_cache_settings).
        type: str
      action_parameters:
        description: Parameters of the action.
        type: dict
      expression:
        description: Requests that the rule matches, in Cloudflare's Rules language.
        type: str
      description:
        description: Description that the dashboard shows.
        type: str
        default: ""
      enabled:
        description: Whether the rule is enabled.
        type: bool
        default: true
  dns:
    description:
      - The A, AAAA and CNAME records of each name. Other records of these types are removed from it. Records
        of other types and of other names are left alone.
      - A record whose type changes is replaced in one transaction.
    type: list
    elements: dict
    suboptions:
      name:
        description: Fully qualified name, in lower case.
        type: str
        required: true
      records:
        description: The records.
        type: list
        elements: dict
        required: true
        suboptions:
          type:
            description: Type of the record.
            type: str
            required: true
            choices: [A, AAAA, CNAME]
          content:
            description: Address, or the host name of a CNAME.
            type: str
            required: true
          proxied:
            description: Whether traffic goes through Cloudflare.
            type: bool
            default: true
          ttl:
            description: Time to live in seconds of a record that is not proxied. V(1) is automatic.
            type: int
            default: 1
  hosts:
    description:
      - The site's host names, in lower case. Other proxied host names of the zone are reported before the
        first write that affects them; see RV(affected_hosts).
      - Where they are given, the configuration rules of O(scope) are managed.
    type: list
    elements: str
    default: []
  scope:
    description:
      - V(zone) sets all of O(settings) for the whole zone.
      - V(host) sets C(ssl) and C(rocket_loader) for O(hosts) only, by configuration rules in front of the
        zone's other ones, and leaves these settings of the zone alone. Cloudflare has no such rule for the
        other settings.
      - A change from V(host) to V(zone) removes the rules after the settings are written.
    type: str
    choices: [zone, host]
    default: zone
  lower_min_tls_version:
    description:
      - Whether C(min_tls_version) may be lowered, for all hosts of the zone. Otherwise a lower value than the
        zone's fails the task while the zone is unchanged.
    type: bool
    default: false
  argo:
    description: Whether Argo Smart Routing is on. Cloudflare charges for it by traffic.
    type: bool
  unavailable:
    description:
      - Handling of a setting, a rule or Argo that is locked or not included in the zone's plan.
      - V(fail) fails the task, before the first write where the obstacle is known by then. V(tolerate)
        warns, lists the resource in RV(unavailable) and continues.
    type: str
    choices: [fail, tolerate]
    default: fail
notes:
  - The token needs, for the resources that are managed, Zone Settings Write, DNS Write, Cache Rules Write,
    Config Rules Write and Response Compression Write.
  - Where O(settings) has C(ssl), the setting C(ssl_automatic_mode) is first set to V(custom), so that
    Cloudflare does not change the mode on its own; if that fails, the task continues with a warning. Name
    C(ssl_automatic_mode) in O(settings) to choose otherwise.
  - Settings are turned off before C(ssl) is written and on after it, so that none depends on an SSL mode
    that is not active yet.
seealso:
  - module: screen_flow.live.cloudflare_origin_ca_certificate
  - module: screen_flow.live.cloudflare_origin_pulls
extends_documentation_fragment: [screen_flow.live.cloudflare, screen_flow.live.attributes]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Let WebSockets through, and exclude them from the cache
  screen_flow.live.cloudflare_zone:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    settings:
      ssl: full
      websockets: true
      rocket_loader: false
    rules:
      - phase: http_request_cache_settings
        ref: websocket_cache
        action: set_cache_settings
        action_parameters: {cache: false}
        expression: starts_with(http.request.uri.path, "/ws/")
  delegate_to: localhost

- name: Show what a change of the DNS records would do
  screen_flow.live.cloudflare_zone:
    zone_id: 023e105f4ecef8ad9ca31a8372d0c353
    api_token: "{{ vault_cloudflare_token }}"
    dns:
      - name: www.example.com
        records:
          - {type: A, content: 192.0.2.1}
  delegate_to: localhost
  check_mode: true
  diff: true
"""

RETURN = r"""
zone_id:
  description: Id of the zone.
  type: str
  returned: when the zone was found
  sample: 023e105f4ecef8ad9ca31a8372d0c353
before:
  description: The named resources before the task, in the form of the module's own options.
  type: dict
  returned: when everything could be read
  sample: {settings: {rocket_loader: "on", ssl: flexible}, argo: false}
after:
  description: The same after the task; in check mode, as it would be.
  type: dict
  returned: when everything could be read
  sample: {settings: {rocket_loader: "off", ssl: full}, argo: false}
changes:
  description: What changed, or would change in check mode, in the order of writing.
  type: list
  elements: dict
  returned: when everything could be read
  sample: [{resource: setting ssl, difference: changed, before: flexible, after: full}]
  contains:
    resource:
      description: The resource.
      type: str
      sample: setting ssl
    difference:
      description: V(missing), V(changed), or V(added) where there was more than wanted.
      type: str
      sample: changed
    before:
      description: Its value before.
      type: raw
      sample: flexible
    after:
      description: Its value after.
      type: raw
      sample: full
unavailable:
  description: Resources that differ but are locked or not included in the plan, with the reason.
  type: list
  elements: dict
  returned: when everything could be read
  sample: [{resource: setting polish, wanted: lossy, found: "off", reason: it is locked for this zone}]
affected_hosts:
  description:
    - Proxied host names of the zone other than O(hosts). They are affected, because a setting of the zone or
      Argo changes.
  type: list
  elements: str
  returned: when such a setting changes or would change, and the token may read DNS records
  sample: [shop.example.com]
calls:
  description: Number of requests, retries not counted.
  type: int
  returned: when the zone was found
  sample: 13
"""

from typing import Any

from ..module_utils.cloudflare import dns, settings
from ..module_utils.cloudflare.client import CloudflareApi, CloudflareFailure, Reason, Zone, invalid_input
from ..module_utils.cloudflare.module import create_module, find_zone, open_api
from ..module_utils.cloudflare.resource import ResourceType
from ..module_utils.cloudflare.rules import PHASES, Rules, validate_rules
from ..module_utils.cloudflare.run import Run
from ..module_utils.cloudflare.scope import split_by_scope

ARGUMENTS: dict[str, dict[str, Any]] = {
    "settings": {"type": "dict"},
    "rules": {
        "type": "list",
        "elements": "dict",
        "options": {
            "phase": {"type": "str", "required": True, "choices": list(PHASES)},
            "ref": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "action": {"type": "str"},
            "action_parameters": {"type": "dict"},
            "expression": {"type": "str"},
            "description": {"type": "str", "default": ""},
            "enabled": {"type": "bool", "default": True},
        },
        "required_if": [("state", "present", ("action", "action_parameters", "expression"))],
    },
    "dns": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "records": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "type": {"type": "str", "required": True, "choices": list(dns.TYPES)},
                    "content": {"type": "str", "required": True},
                    "proxied": {"type": "bool", "default": True},
                    "ttl": {"type": "int", "default": 1},
                },
            },
        },
    },
    "hosts": {"type": "list", "elements": "str", "default": []},
    "scope": {"type": "str", "choices": ["zone", "host"], "default": "zone"},
    "lower_min_tls_version": {"type": "bool", "default": False},
    "argo": {"type": "bool"},
    "unavailable": {"type": "str", "choices": ["fail", "tolerate"], "default": "fail"},
}


def validate(inputs: dict[str, Any]) -> None:
    """Raise CloudflareFailure for arguments that are not valid, before any request."""
    settings.validate_settings(inputs["settings"] or {})
    if inputs["scope"] == "host" and not inputs["hosts"]:
        raise invalid_input("scope is host, but hosts is empty: name the site's host names.")
    validate_rules(inputs["rules"] or [])
    dns.validate_dns(inputs["dns"] or [], inputs["zone"] or "")


def scoped(inputs: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings of the zone, and all rules: the scope's, unless named as such, then the others."""
    zone_settings, rules = split_by_scope(inputs["settings"] or {}, inputs["hosts"], inputs["scope"])
    named = inputs["rules"] or []
    refs = {rule["ref"] for rule in named}
    return zone_settings, [*(rule for rule in rules if rule["ref"] not in refs), *named]


def resource_types(api: CloudflareApi, zone: Zone, inputs: dict[str, Any]) -> list[ResourceType]:
    """Return the resource types that are managed, in the order of writing.

    Rules exempt only the WebSocket path, so they can come first. DNS leads visitors to the site, so it comes
    when the site is ready for them.
    """
    managed: list[ResourceType] = []
    zone_settings, rules = scoped(inputs)
    if rules:
        managed.append(Rules(api, zone, rules))
    if zone_settings:
        managed.append(settings.Settings(api, zone, zone_settings, inputs["lower_min_tls_version"]))
    if inputs["dns"]:
        managed.append(dns.Dns(api, zone, inputs["dns"]))
    if inputs["argo"] is not None:
        managed.append(settings.Argo(api, zone, inputs["argo"]))
    return managed


def needed_permissions(inputs: dict[str, Any]) -> list[str]:
    """Return the permissions that the managed resources need, in addition to Zone Read."""
    zone_settings, rules = scoped(inputs)
    needed = [PHASES[rule["phase"]] for rule in rules]
    if zone_settings or inputs["argo"] is not None:
        needed.append(settings.PERMISSION)
    if inputs["dns"]:
        needed.append(dns.PERMISSION)
    return list(dict.fromkeys(needed))


def main() -> None:
    """Entry point: find the zone, read, compare, check the permissions, write."""
    module = create_module(ARGUMENTS)
    inputs = module.params
    result: dict[str, Any] = {}
    try:
        validate(inputs)
        api = open_api(module)
        try:
            zone = find_zone(module, api)
        except CloudflareFailure as failure:
            if failure.reason is not Reason.PERMISSION:
                raise
            # The other permissions can't be checked without the zone.
            names = ", ".join(["Zone Read", *needed_permissions(inputs)])
            raise failure.with_message(f"{failure} In total the token needs: {names}.") from failure
        run = Run(
            api, zone, resource_types(api, zone, inputs), inputs["unavailable"] == "tolerate", inputs["hosts"]
        )
        if zone.status != "active":
            module.warn(f"Zone {zone.name} is {zone.status}: Cloudflare serves it once it is active.")
        try:
            run.read()
            if module.check_mode:
                run.plan()
            else:
                run.write()
        finally:
            result = run.result()
            for warning in [*(text for one in run.types for text in one.warnings), *run.warnings]:
                module.warn(warning)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
