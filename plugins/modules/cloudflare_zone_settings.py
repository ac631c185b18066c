#!/usr/bin/python
"""Ansible module: give a Cloudflare zone the settings that it should have, in one process."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_zone_settings
short_description: Set the settings of a Cloudflare zone
description:
  - Reads every named setting, compares, and writes only those that differ.
  - All settings are read before the first is written. An unknown setting, or one that differs but is locked
    for this zone, fails the run while the zone is still as it was.
  - Where O(settings) names V(ssl), the setting V(ssl_automatic_mode) is set to V(custom) first, so that
    Cloudflare does not change the mode by itself. Should that fail, the run goes on with a warning. Name
    V(ssl_automatic_mode) in O(settings) to decide otherwise.
  - Settings are turned off before V(ssl) is written and on after it, so that none depends on an SSL mode that
    is not there. The first write that fails ends the run; the message says what was written before it.
options:
  settings:
    description:
      - Names of settings and the values that they should have, as in Cloudflare's API.
      - Booleans are understood as V(on) and V(off), and numbers as text where Cloudflare has text
        (C(min_tls_version) V(1.2)). Of a setting that is a mapping, keys that are not named stay as they are.
    type: dict
    required: true
  zone:
    description: Name of the zone, in lower case. Exactly one of O(zone) and O(zone_id) is needed.
    type: str
  zone_id:
    description: Id of the zone, 32 hexadecimal digits. It saves one request.
    type: str
  api_token:
    description:
      - API token with the permissions Zone Read and Zone Settings Write for the zone.
      - Not given, the environment variable E(CLOUDFLARE_API_TOKEN) is read. No other credential is ever used,
        and the token appears in no output.
    type: str
    required: true
  api_base_url:
    description: Address of the API. Only on this machine itself may it begin with http://.
    type: str
    default: https://api.cloudflare.com/client/v4
  wait_seconds:
    description:
      - How long all waits for Cloudflare's rate limit may last together, in seconds. Each is as long as
        Cloudflare asks for.
    type: int
    default: 900
  progress_file:
    description: File that takes a sentence before each wait; the project's action plugin shows it at once.
    type: path
requirements:
  - cloudflare 5.9.0, where the module runs
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
author:
  - the screen-flow developers
"""

EXAMPLES = r"""
- name: Let WebSockets through
  cloudflare_zone_settings:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    settings:
      ssl: full
      websockets: true
      rocket_loader: false
  delegate_to: localhost

- name: See what would change
  cloudflare_zone_settings:
    zone_id: 023e105f4ecef8ad9ca31a8372d0c353
    settings:
      min_tls_version: 1.2
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
  description: Each setting's value before the run, as Cloudflare gives it.
  type: dict
  returned: when the settings could be read
  sample: {ssl_automatic_mode: auto, rocket_loader: "on", ssl: flexible, websockets: "on"}
after:
  description: Each setting's value after the run, or what it would be in check mode.
  type: dict
  returned: when the settings could be read
  sample: {ssl_automatic_mode: custom, rocket_loader: "off", ssl: full, websockets: "on"}
changed_settings:
  description: Names of the settings that changed, or would change in check mode, in the order of writing.
  type: list
  elements: str
  returned: when the settings could be read
  sample: [ssl_automatic_mode, rocket_loader, ssl]
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Packed by Ansible, this file is a part of ansible.modules.
from ..module_utils.cloudflare_api import (
    ZONE_RULES,
    Call,
    CloudflareApi,
    CloudflareFailure,
    Zone,
    api_arguments,
    open_zone,
    require_sdk,
    unusable,
)

PIN = "ssl_automatic_mode"
NEEDS = "Zone Settings Write"
LOCKED = (
    "it is locked for this zone: the plan does not include it, or Cloudflare manages it. Leave it out of "
    "settings or change the plan."
)
NO_VALUE = "it does not take that value; correct it in settings."
# What Cloudflare's error codes mean for a setting.
REFUSALS = {
    1006: "there is no setting of that name; correct it in settings.",
    1007: NO_VALUE,
    1008: NO_VALUE,
    1024: LOCKED,
    1025: LOCKED,
    1057: LOCKED,
}


@dataclass(frozen=True)
class Setting:
    """A setting of the zone: its value now, the value that it should have, and whether it may be written."""

    name: str
    before: Any
    wanted: Any
    editable: bool = True
    optional: bool = False
    """A failure to read or write it is a warning, not an error."""

    @property
    def differs(self) -> bool:
        """Whether it has to be written."""
        return bool(self.before != self.wanted)


def in_cloudflares_form(value: Any, current: Any) -> Any:
    """Return a value from YAML in the form that Cloudflare gives the current one.

    True beside "off" is "on", 1.2 beside "1.0" is "1.2", and a mapping takes over the keys that it lacks.
    """
    if isinstance(value, bool) and not isinstance(current, bool):
        return "on" if value else "off"
    if isinstance(value, int | float) and isinstance(current, str):
        return str(value)
    if isinstance(value, dict) and isinstance(current, dict):
        return {
            **current,
            **{key: in_cloudflares_form(item, current.get(key)) for key, item in value.items()},
        }
    return value


def in_writing_order(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings in an order in which each state in between serves the site.

    What needs HTTPS has to be off before a lower SSL mode is written, and on after a higher one.
    """

    def rank(setting: Setting) -> int:
        if setting.name == PIN:
            return 0
        if setting.name == "ssl":
            return 2
        return 1 if setting.wanted == "off" else 3

    return sorted(settings, key=rank)


def one_line(value: Any) -> str:
    """Return a setting's value as people write it: text bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def as_diff(header: str, before: Any, after: Any) -> dict[str, str]:
    """Return the diff of one setting, a mapping with a line for each key."""

    def text(value: Any) -> str:
        return (
            json.dumps(value, sort_keys=True, indent=2) if isinstance(value, dict) else one_line(value)
        ) + "\n"

    return {
        "before_header": header,
        "after_header": header,
        "before": text(before),
        "after": text(after),
    }


def check_names(settings: Mapping[Any, Any]) -> None:
    """Raise CloudflareFailure for names that are none, and for settings without a value."""
    for name, value in settings.items():
        if not re.fullmatch(r"[a-z0-9_]+", str(name)):
            raise CloudflareFailure(
                f"settings names '{name}': give a name as in Cloudflare's API, such as rocket_loader."
            )
        if value is None:
            raise CloudflareFailure(f"settings gives {name} no value: give one, or leave the name out.")


def read(api: CloudflareApi, zone: Zone, name: str) -> tuple[Any, bool]:
    """Return a setting's value and whether it may be written; raises CloudflareFailure."""
    return ask(api, zone, name, "get", f"read zone setting {name}")


def write(api: CloudflareApi, zone: Zone, name: str, value: Any) -> Any:
    """Write a setting and return the value that Cloudflare made of it; raises CloudflareFailure."""
    return ask(api, zone, name, "patch", f"set zone setting {name} to {one_line(value)}", {"value": value})[0]


def ask(
    api: CloudflareApi, zone: Zone, name: str, method: str, what: str, body: dict[str, Any] | None = None
) -> tuple[Any, bool]:
    """Send one request about a setting; return its value and whether it may be written."""
    result = api.call(
        Call(method, f"/zones/{zone.id}/settings/{name}", what, NEEDS, body=body, refusals=REFUSALS)
    )
    if not isinstance(result, dict) or "value" not in result:
        raise CloudflareFailure(unusable(what, api.base_url))
    return result["value"], result.get("editable") is not False


def read_settings(
    api: CloudflareApi, zone: Zone, wanted: Mapping[str, Any]
) -> tuple[list[Setting], list[str]]:
    """Return what is wanted beside what is there, in the order of writing, and warnings.

    Raises CloudflareFailure when settings are unknown, or differ and are locked, naming all of them.
    """
    found: list[Setting] = []
    refused: list[str] = []
    for name, value in wanted.items():
        try:
            before, editable = read(api, zone, name)
        except CloudflareFailure as failure:
            if not failure.codes & {1006}:
                raise
            refused.append(str(failure))
            continue
        setting = Setting(name, before, in_cloudflares_form(value, before), editable)
        if setting.differs and not editable:
            refused.append(f"Can't set zone setting {name} to {one_line(setting.wanted)}: {LOCKED}")
        found.append(setting)
    if refused:
        raise CloudflareFailure(" ".join([*refused, "Nothing was written."]))
    warnings = []
    if "ssl" in wanted and PIN not in wanted:
        try:
            before, editable = read(api, zone, PIN)
        except CloudflareFailure as failure:
            warnings.append(f"Cloudflare may change the SSL mode by itself. {failure}")
        else:
            found.append(Setting(PIN, before, "custom" if editable else before, editable, optional=True))
            if not editable and before != "custom":
                warnings.append(
                    f"Cloudflare may change the SSL mode by itself: {PIN} is {before} and locked."
                )
    return in_writing_order(found), warnings


class Run:
    """One run over a zone: what was found, what has been written, and what there is to say of it."""

    def __init__(self, zone: Zone, settings: Sequence[Setting], warnings: list[str]) -> None:
        self.zone = zone
        self.settings = settings
        self.warnings = warnings
        self.before = {setting.name: setting.before for setting in settings}
        self.after = dict(self.before)
        self.changed: list[str] = []

    def pretend(self) -> None:
        """Note what would be written."""
        for setting in filter(lambda setting: setting.differs, self.settings):
            self.note(setting.name, setting.wanted)

    def write(self, api: CloudflareApi) -> None:
        """Write what differs; raises CloudflareFailure, naming what was and what was not written."""
        todo = [setting for setting in self.settings if setting.differs]
        for position, setting in enumerate(todo):
            try:
                value = write(api, self.zone, setting.name, setting.wanted)
            except CloudflareFailure as failure:
                if setting.optional:
                    self.warnings.append(f"Cloudflare may change the SSL mode by itself. {failure}")
                    continue
                done = (
                    f"Written before that: {', '.join(self.changed)}."
                    if self.changed
                    else "Nothing was written."
                )
                left = ", ".join(other.name for other in todo[position + 1 :])
                raise CloudflareFailure(
                    " ".join([str(failure), done, *([f"Not tried: {left}."] if left else [])]), failure.codes
                ) from failure
            self.note(setting.name, value)
            if value != setting.wanted:
                self.warnings.append(
                    f"Cloudflare took {one_line(setting.wanted)} for {setting.name}, but made it "
                    f"{one_line(value)}; if that is right, ask for it in settings."
                )

    def note(self, name: str, value: Any) -> None:
        """Take down that a setting has a new value."""
        self.after[name] = value
        self.changed.append(name)

    def result(self) -> dict[str, Any]:
        """Return what the module returns, diff included."""
        return {
            "changed": bool(self.changed),
            "zone_id": self.zone.id,
            "before": self.before,
            "after": self.after,
            "changed_settings": self.changed,
            "diff": [
                as_diff(f"zone {self.zone.name}, setting {name}", self.before[name], self.after[name])
                for name in self.changed
            ],
        }


def main() -> None:
    """Entry point: find the zone, read, compare, write."""
    module = AnsibleModule(
        argument_spec=api_arguments() | {"settings": {"type": "dict", "required": True}},
        supports_check_mode=True,
        **ZONE_RULES,
    )
    require_sdk(module)
    result: dict[str, Any] = {}
    try:
        check_names(module.params["settings"])
        api, zone = open_zone(module)
        result = {"zone_id": zone.id}
        settings, warnings = read_settings(api, zone, module.params["settings"])
        if zone.status != "active":
            warnings.append(
                f"Zone {zone.name} is {zone.status}: Cloudflare does not serve it until it is active."
            )
        run = Run(zone, settings, warnings)
        try:
            if module.check_mode:
                run.pretend()
            else:
                run.write(api)
        finally:
            result = run.result()
            for warning in run.warnings:
                module.warn(warning)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
