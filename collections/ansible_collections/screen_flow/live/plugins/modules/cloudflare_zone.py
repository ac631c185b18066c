#!/usr/bin/python
"""Ansible module: bring a Cloudflare zone to what it should be, in one process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_zone
short_description: Bring settings, rules, DNS and Argo of a Cloudflare zone to what they should be
description:
  - Reads everything that is named, compares, and writes only what differs. What is not named is left alone.
  - All is read before the first write. An unknown setting, or one that differs but is locked for this zone,
    fails the run while the zone is still as it was.
  - Before the first write the token is tried for each kind of thing, by requests that can write nothing, and
    every permission that it lacks is named at once. In check mode a token that may only read is enough.
  - Written are first rules, then settings, then DNS, then Argo. The first write that fails ends the run; the
    message says what was written before it, and each state in between serves the site.
  - Where O(settings) names V(ssl), the setting V(ssl_automatic_mode) is set to V(custom) first, so that
    Cloudflare does not change the mode by itself. Should that fail, the run goes on with a warning. Name
    V(ssl_automatic_mode) in O(settings) to decide otherwise.
  - Settings are turned off before V(ssl) is written and on after it, so that none depends on an SSL mode that
    is not there.
  - The token needs, as far as they are managed, Zone Settings Write, DNS Write, Cache Rules Write, Config
    Rules Write and Response Compression Write.
options:
  settings:
    description:
      - Names of settings and the values that they should have, as in Cloudflare's API.
      - Booleans are understood as V(on) and V(off), and numbers as text where Cloudflare has text
        (C(min_tls_version) V(1.2)). Of a setting that is a mapping, keys that are not named stay as they are.
    type: dict
  rules:
    description:
      - Rules in the phases of the zone, each found by its O(rules[].ref). Other rules keep content and order.
      - A rule that is missing is added at the end of its phase, where it decides over those before it.
    type: list
    elements: dict
    suboptions:
      phase:
        description: Cloudflare's name of the phase.
        type: str
        required: true
        choices: [http_request_cache_settings, http_config_settings, http_response_compression]
      ref:
        description: The rule's own name, which no other rule of the phase has.
        type: str
        required: true
      state:
        description: Whether the rule should be there.
        type: str
        choices: [present, absent]
        default: present
      action:
        description: What the rule does, such as V(set_cache_settings).
        type: str
      action_parameters:
        description: How it does it.
        type: dict
      expression:
        description: Which requests it is for, in Cloudflare's language of rules.
        type: str
      description:
        description: What the dashboard shows of it.
        type: str
        default: ""
      enabled:
        description: Whether it is in force.
        type: bool
        default: true
  dns:
    description:
      - The records of type A, AAAA and CNAME that a name should have; it has no others of these types after.
        Records of other types and of other names are left alone.
      - A record of another of these types is replaced in one transaction.
    type: dict
    suboptions:
      name:
        description: The name, whole and in lower case.
        type: str
        required: true
      records:
        description: The records.
        type: list
        elements: dict
        required: true
        suboptions:
          type:
            description: The record's type.
            type: str
            required: true
            choices: [A, AAAA, CNAME]
          content:
            description: The address, or the host name of a CNAME.
            type: str
            required: true
          proxied:
            description: Whether visitors reach it through Cloudflare.
            type: bool
            default: true
          ttl:
            description: Time to live in seconds, of a record that is not proxied. 1 is automatic.
            type: int
            default: 1
  argo:
    description: Whether Argo Smart Routing is on. It is paid for by traffic.
    type: bool
  unavailable:
    description:
      - What to do about a setting, a rule or Argo that the zone's plan does not include or that is locked.
      - V(fail) ends the run before the first write where that can be known then. V(tolerate) warns, names it
        in RV(unavailable) and goes on.
    type: str
    choices: [fail, tolerate]
    default: fail
extends_documentation_fragment:
  - screen_flow.live.cloudflare
  - screen_flow.live.attributes
  - screen_flow.live.attributes.group_cloudflare
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Let WebSockets through, past the cache
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

- name: See what would change
  screen_flow.live.cloudflare_zone:
    zone_id: 023e105f4ecef8ad9ca31a8372d0c353
    dns:
      name: www.example.com
      records:
        - {type: A, content: 192.0.2.1}
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
  description: What was named, as it was before the run, in the form of the module's own arguments.
  type: dict
  returned: when all could be read
  sample: {settings: {rocket_loader: "on", ssl: flexible}, argo: false}
after:
  description: The same after the run, or what it would be in check mode.
  type: dict
  returned: when all could be read
  sample: {settings: {rocket_loader: "off", ssl: full}, argo: false}
changes:
  description: What changed, or would change in check mode, in the order of writing.
  type: list
  elements: dict
  returned: when all could be read
  contains:
    thing:
      description: What it is.
      type: str
      sample: setting ssl
    how:
      description: How it differs, V(missing), V(changed), or V(added) where there is more than should be.
      type: str
    before:
      description: What it was.
      type: raw
    after:
      description: What it became.
      type: raw
unavailable:
  description: What differs but can't be had, with the reason.
  type: list
  elements: dict
  returned: when all could be read
  sample: [{thing: setting polish, wanted: lossy, found: "off", reason: it is locked for this zone}]
calls:
  description: How many requests were sent.
  type: int
  returned: when the zone was found
  sample: 13
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Packed by Ansible, this file is a part of ansible.modules.
from ..module_utils.cloudflare.client import (
    TOKENS_PAGE,
    ZONE_RULES,
    CloudflareApi,
    CloudflareFailure,
    Zone,
    api_arguments,
    open_api,
    require_sdk,
    zone_of,
)
from ..module_utils.cloudflare.dns import NEEDS as DNS_NEEDS
from ..module_utils.cloudflare.dns import TYPES, Dns, check_dns
from ..module_utils.cloudflare.resource import Kind, NotToBeHad, Thing, as_diff, one_line
from ..module_utils.cloudflare.rules import PHASES, Rules, check_rules
from ..module_utils.cloudflare.settings import LOCKED_CODES, Argo, Settings, check_settings
from ..module_utils.cloudflare.settings import NEEDS as SETTINGS_NEED

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
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "records": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "type": {"type": "str", "required": True, "choices": list(TYPES)},
                    "content": {"type": "str", "required": True},
                    "proxied": {"type": "bool", "default": True},
                    "ttl": {"type": "int", "default": 1},
                },
            },
        },
    },
    "argo": {"type": "bool"},
    "unavailable": {"type": "str", "choices": ["fail", "tolerate"], "default": "fail"},
}


def check(given: dict[str, Any]) -> None:
    """Raise CloudflareFailure for arguments that can't be, before anything is asked."""
    check_settings(given["settings"] or {})
    check_rules(given["rules"] or [])
    if given["dns"]:
        check_dns(given["dns"], given["zone"] or "")


def kinds_of(api: CloudflareApi, zone: Zone, given: dict[str, Any]) -> list[Kind]:
    """Return the kinds of things that are asked for, in the order of writing.

    Rules exempt the WebSocket path only, so they can come first. DNS leads visitors here: when all is ready.
    """
    kinds: list[Kind] = []
    if given["rules"]:
        kinds.append(Rules(api, zone, given["rules"]))
    if given["settings"]:
        kinds.append(Settings(api, zone, given["settings"]))
    if given["dns"]:
        kinds.append(Dns(api, zone, given["dns"]))
    if given["argo"] is not None:
        kinds.append(Argo(api, zone, given["argo"]))
    return kinds


def permissions(given: dict[str, Any]) -> list[str]:
    """Return the permissions that a token needs to read and write what is asked for."""
    needed = [PHASES[rule["phase"]] for rule in given["rules"] or []]
    if given["settings"] or given["argo"] is not None:
        needed.append(SETTINGS_NEED)
    if given["dns"]:
        needed.append(DNS_NEEDS)
    return needed


def lacking(missing: Sequence[str]) -> str:
    """Return the sentence for all permissions that the token lacks."""
    names = list(dict.fromkeys(missing))
    lacks = "a permission" if len(names) == 1 else f"{len(names)} permissions"
    return (
        f"The API token is valid but lacks {lacks}: add {', '.join(names)} for this zone to it at "
        f"{TOKENS_PAGE}. Nothing was written."
    )


class Run:
    """One run over a zone: what was found, what has been written, and what there is to say of it."""

    def __init__(self, api: CloudflareApi, zone: Zone, kinds: Sequence[Kind], tolerant: bool) -> None:
        self.api = api
        self.zone = zone
        self.kinds = kinds
        self.tolerant = tolerant
        self.things: dict[str, list[Thing]] = {}
        self.values: dict[str, Any] = {}
        self.changed: list[Thing] = []
        self.unavailable: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def read(self) -> None:
        """Read everything; raises CloudflareFailure naming all missing permissions, or all locked things."""
        missing: list[str] = []
        for kind in self.kinds:
            try:
                self.things[kind.key] = kind.read()
            except CloudflareFailure as failure:
                if not failure.missing:
                    raise
                missing.extend(failure.missing)
        if missing:
            raise CloudflareFailure(lacking(missing), missing=missing)
        locked = [thing for thing in self.all() if thing.differs and thing.locked]
        for thing in locked:
            self.give_up(thing, thing.locked)
        refused = [thing.wrong for thing in self.all() if thing.wrong]
        if not self.tolerant:
            refused += [thing.locked for thing in locked]
        if refused:
            raise CloudflareFailure(" ".join([*refused, "Nothing was written."]))
        self.values = {thing.name: thing.before for thing in self.all()}

    def all(self) -> list[Thing]:
        """Return every thing, in the order of writing."""
        return [thing for kind in self.kinds for thing in self.things[kind.key]]

    def todo(self) -> list[Thing]:
        """Return what has to be written."""
        return [thing for thing in self.all() if thing.differs and not thing.locked]

    def give_up(self, thing: Thing, reason: str) -> None:
        """Take down that a thing can't be had."""
        self.unavailable.append(
            {"thing": thing.name, "wanted": thing.wanted, "found": thing.before, "reason": reason}
        )
        if self.tolerant:
            self.warnings.append(f"{reason} It stays as it is.")

    def pretend(self) -> None:
        """Note what would be written."""
        for thing in self.todo():
            self.note(thing, thing.wanted)

    def try_token(self) -> None:
        """Raise CloudflareFailure naming every permission that the token lacks, before the first write."""
        missing: list[str] = []
        for call in (call for kind in self.kinds for call in kind.trials()):
            try:
                self.api.call(call)
            except CloudflareFailure as failure:
                # Whatever else it is refused for, the write itself will meet and say.
                missing.extend(failure.missing)
        if missing:
            raise CloudflareFailure(lacking(missing), missing=missing)

    def write(self) -> None:
        """Write what differs; raises CloudflareFailure, naming what was and what was not written."""
        todo = self.todo()
        if todo:
            self.try_token()
        for position, thing in enumerate(todo):
            try:
                value = thing.write()
            except CloudflareFailure as failure:
                if thing.optional:
                    self.warnings.append(f"Cloudflare may change the SSL mode by itself. {failure}")
                    continue
                if isinstance(failure, NotToBeHad) or failure.codes & LOCKED_CODES:
                    self.give_up(thing, str(failure))
                    if self.tolerant:
                        continue
                raise self.halfway(failure, todo[position + 1 :]) from failure
            self.note(thing, value)
            if value != thing.wanted:
                self.warnings.append(
                    f"Cloudflare took {one_line(thing.wanted)} for {thing.name}, but made it "
                    f"{one_line(value)}; if that is right, ask for it."
                )

    def halfway(self, failure: CloudflareFailure, left: Sequence[Thing]) -> CloudflareFailure:
        """Return the failure with what was written before it and what was not tried."""
        names = ", ".join(thing.name for thing in self.changed)
        said = [str(failure), f"Written before that: {names}." if names else "Nothing was written."]
        if left:
            said.append(f"Not tried: {', '.join(thing.name for thing in left)}. The next run goes on here.")
        return CloudflareFailure(" ".join(said), failure.codes)

    def note(self, thing: Thing, value: Any) -> None:
        """Take down that a thing has a new value."""
        self.values[thing.name] = value
        self.changed.append(thing)

    def result(self) -> dict[str, Any]:
        """Return what the module returns, diff included."""
        result: dict[str, Any] = {"zone_id": self.zone.id, "calls": self.api.calls}
        if not self.values:
            return result
        before = {thing.name: thing.before for thing in self.all()}

        def state(values: dict[str, Any]) -> dict[str, Any]:
            return {
                kind.key: kind.state({thing.name: values[thing.name] for thing in self.things[kind.key]})
                for kind in self.kinds
            }

        return result | {
            "changed": bool(self.changed),
            "before": state(before),
            "after": state(self.values),
            "changes": [
                {
                    "thing": thing.name,
                    "how": thing.how,
                    "before": thing.before,
                    "after": self.values[thing.name],
                }
                for thing in self.changed
            ],
            "unavailable": self.unavailable,
            "diff": [
                as_diff(f"zone {self.zone.name}, {thing.name}", thing.before, self.values[thing.name])
                for thing in self.changed
            ],
        }


def main() -> None:
    """Entry point: find the zone, read, compare, try the token, write."""
    module = AnsibleModule(argument_spec=api_arguments() | ARGUMENTS, supports_check_mode=True, **ZONE_RULES)
    require_sdk(module)
    given = module.params
    result: dict[str, Any] = {}
    try:
        check(given)
        api = open_api(module)
        try:
            zone = zone_of(module, api)
        except CloudflareFailure as failure:
            if failure.missing:
                # Without the zone the others can't be tried.
                also = ", ".join(dict.fromkeys(permissions(given)))
                raise CloudflareFailure(f"{failure} All in all it needs Zone Read, {also}.") from failure
            raise
        kinds = kinds_of(api, zone, given)
        run = Run(api, zone, kinds, given["unavailable"] == "tolerate")
        if zone.status != "active":
            module.warn(f"Zone {zone.name} is {zone.status}: Cloudflare serves it when it is active.")
        try:
            run.read()
            if module.check_mode:
                run.pretend()
            else:
                run.write()
        finally:
            result = run.result()
            for warning in [*(said for kind in kinds for said in kind.warnings), *run.warnings]:
                module.warn(warning)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
