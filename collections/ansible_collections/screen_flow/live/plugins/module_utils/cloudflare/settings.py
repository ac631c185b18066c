"""A zone's settings, and Argo Smart Routing, which is one in all but its address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .client import PLAN_CODE, Call, CloudflareApi, CloudflareFailure, Zone, unusable
from .resource import Thing, one_line

PIN = "ssl_automatic_mode"
NEEDS = "Zone Settings Write"
LOCKED = "it is locked for this zone: the plan does not include it, or Cloudflare manages it"
NO_VALUE = "it does not take that value; correct it in settings."
LOCKED_CODES = {1024, 1025, 1057, PLAN_CODE}
# What Cloudflare's error codes mean for a setting.
REFUSALS = {
    1006: "there is no setting of that name; correct it in settings.",
    1007: NO_VALUE,
    1008: NO_VALUE,
    **dict.fromkeys(LOCKED_CODES, LOCKED + "."),
    PLAN_CODE: "the zone's plan does not include it; leave it out or change the plan.",
}
ARGO = "Argo Smart Routing"
NOT_ENTITLED = (
    "the zone is not entitled to it: it is paid for apart from the plan. Order it in Cloudflare's dashboard "
    "(Traffic > Argo Smart Routing), or leave it off."
)


def in_cloudflares_form(value: Any, current: Any) -> Any:
    """Return a value from YAML in the form that Cloudflare gives the current one.

    True beside "off" is "on", 1.2 beside "1.0" is "1.2", and a mapping takes over the keys that it lacks.
    "zrt" is how tls_1_3 says on when 0-RTT is on too.
    """
    if isinstance(value, bool) and not isinstance(current, bool):
        value = "on" if value else "off"
    if value == "on" and current == "zrt":
        return current
    if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(current, str):
        return str(value)
    if isinstance(value, dict) and isinstance(current, dict):
        return {
            **current,
            **{key: in_cloudflares_form(item, current.get(key)) for key, item in value.items()},
        }
    return value


def check_settings(settings: Mapping[Any, Any]) -> None:
    """Raise CloudflareFailure for names that are none, and for settings without a value."""
    for name, value in settings.items():
        if not re.fullmatch(r"[a-z0-9_]+", str(name)):
            raise CloudflareFailure(
                f"settings names '{name}': give a name as in Cloudflare's API, such as rocket_loader."
            )
        if value is None:
            raise CloudflareFailure(f"settings gives {name} no value: give one, or leave the name out.")


def value_of(api: CloudflareApi, call: Call) -> tuple[Any, bool]:
    """Send a request about a setting; return its value and whether it may be written."""
    result = api.call(call)
    if not isinstance(result, dict) or "value" not in result:
        raise CloudflareFailure(unusable(call.what, api.base_url))
    return result["value"], result.get("editable") is not False


class Settings:
    """The settings that `wanted` names."""

    key = "settings"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: Mapping[str, Any]) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/settings/"
        self._wanted = dict(wanted)
        self.warnings: list[str] = []

    def read(self) -> list[Thing]:
        """Read each setting."""
        things = [self._thing(name, value) for name, value in self._wanted.items()]
        if "ssl" in self._wanted and PIN not in self._wanted:
            things.extend(self._pin())
        return in_writing_order(things)

    def trials(self) -> list[Call]:
        """Return a write to a setting that there is not: refused for its name to who may write others."""
        path = f"{self._path}permission_check"
        return [Call("patch", path, "try the permission to write settings", NEEDS, body={"value": "on"})]

    def state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return each setting's value by its name."""
        return {name.removeprefix("setting "): value for name, value in values.items()}

    def _thing(self, name: str, value: Any) -> Thing:
        what = f"read zone setting {name}"
        call = Call("get", self._path + name, what, NEEDS, refusals=REFUSALS)
        try:
            before, editable = value_of(self._api, call)
        except CloudflareFailure as failure:
            thing = Thing(f"setting {name}", None, value, lambda: None)
            if failure.codes & LOCKED_CODES:
                thing.locked = str(failure)
            elif failure.codes & {1006}:
                thing.wrong = str(failure)
            else:
                raise
            return thing
        wanted = in_cloudflares_form(value, before)
        locked = "" if editable else f"Can't set zone setting {name} to {one_line(wanted)}: {LOCKED}."
        return Thing(f"setting {name}", before, wanted, lambda: self._write(name, wanted), locked)

    def _pin(self) -> list[Thing]:
        """Return the pin of the SSL mode; none, and a warning, where it can't be had."""
        try:
            pin = self._thing(PIN, "custom")
        except CloudflareFailure as failure:
            self.warnings.append(f"Cloudflare may change the SSL mode by itself. {failure}")
            return []
        if (pin.locked and pin.differs) or pin.wrong:
            self.warnings.append(f"Cloudflare may change the SSL mode by itself. {pin.locked}{pin.wrong}")
            return []
        pin.optional = True
        return [pin]

    def _write(self, name: str, value: Any) -> Any:
        what = f"set zone setting {name} to {one_line(value)}"
        path = self._path + name
        return value_of(
            self._api, Call("patch", path, what, NEEDS, body={"value": value}, refusals=REFUSALS)
        )[0]


def in_writing_order(things: Sequence[Thing]) -> list[Thing]:
    """Return the settings in an order in which each state in between serves the site.

    What needs HTTPS has to be off before a lower SSL mode is written, and on after a higher one.
    """

    def rank(thing: Thing) -> int:
        if thing.name == f"setting {PIN}":
            return 0
        if thing.name == "setting ssl":
            return 2
        return 1 if thing.wanted == "off" else 3

    return sorted(things, key=rank)


class Argo:
    """Argo Smart Routing, on or off."""

    key = "argo"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: bool) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/argo/smart_routing"
        self._wanted = wanted
        self.warnings: list[str] = []

    def read(self) -> list[Thing]:
        """Read it; a zone that is not entitled has it off."""
        refusals = {PLAN_CODE: NOT_ENTITLED}
        call = Call("get", self._path, f"read {ARGO}", NEEDS, refusals=refusals)
        locked = ""
        try:
            before, editable = value_of(self._api, call)
        except CloudflareFailure as failure:
            if not failure.codes & LOCKED_CODES:
                raise
            before, editable = "off", True
            locked = f"Can't turn {ARGO} on: {NOT_ENTITLED}"
        if not editable:
            locked = f"Can't change {ARGO}: {NOT_ENTITLED}"
        return [Thing(ARGO, before == "on", self._wanted, self._write, locked)]

    def trials(self) -> list[Call]:
        """Return none: it needs the permission that settings need."""
        return []

    def state(self, values: dict[str, Any]) -> bool:
        """Return whether it is on."""
        return bool(values[ARGO])

    def _write(self) -> bool:
        value = "on" if self._wanted else "off"
        refusals = dict.fromkeys(LOCKED_CODES, NOT_ENTITLED)
        what = f"turn {ARGO} {value}"
        call = Call("patch", self._path, what, NEEDS, body={"value": value}, refusals=refusals)
        return bool(value_of(self._api, call)[0] == "on")
