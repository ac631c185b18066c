"""A zone's settings, and Argo Smart Routing, a setting with a separate address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .client import Call, CloudflareApi, CloudflareFailure, Reason, Refusal, Zone, invalid_input
from .resource import Resource, to_text

AUTOMATIC_MODE = "ssl_automatic_mode"
MIN_TLS = "min_tls_version"
TLS_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
PERMISSION = "Zone Settings Write"
LOCKED = Refusal(
    Reason.LOCKED, "it is locked for this zone: the plan does not include it, or Cloudflare manages it."
)
INVALID_VALUE = Refusal(Reason.REJECTED, "the value is not valid for this setting; correct it in settings.")
REFUSALS = {
    1006: Refusal(Reason.NOT_FOUND, "Cloudflare has no setting of that name; correct it in settings."),
    1007: INVALID_VALUE,
    1008: INVALID_VALUE,
    1024: LOCKED,
    1025: LOCKED,
    1057: LOCKED,
}
UNAVAILABLE = (Reason.LOCKED, Reason.NOT_ENTITLED)
ARGO = "Argo Smart Routing"
ARGO_NOT_ENTITLED = Refusal(
    Reason.NOT_ENTITLED,
    "the zone is not entitled to it: Argo is not part of the plan. Order it in Cloudflare's "
    "dashboard (Traffic > Argo Smart Routing), or leave it off.",
)
ARGO_REFUSALS = dict.fromkeys((1015, 1024, 1025, 1057), ARGO_NOT_ENTITLED)


def normalize(value: Any, current: Any) -> Any:
    """Return a value from YAML in the form of the setting's current value.

    True becomes "on" where the current value is "off", 1.2 becomes "1.2" where it is "1.0", and a mapping
    takes the keys that it lacks from the current one. "zrt" is what tls_1_3 has for "on" while 0-RTT is on.
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
            **{key: normalize(item, current.get(key)) for key, item in value.items()},
        }
    return value


def at_least(value: Any, current: Any) -> Any:
    """Return min_tls_version as Cloudflare has it; ">=1.2" is the current version where that is higher."""
    wanted = str(value)
    return max(wanted[2:], str(current)) if wanted.startswith(">=") else wanted


def validate_settings(settings: Mapping[Any, Any]) -> None:
    """Raise CloudflareFailure for names that are not valid, and for settings without a value."""
    for name, value in settings.items():
        if not re.fullmatch(r"[a-z0-9_]+", str(name)):
            raise invalid_input(
                f"settings names '{name}': use a name as in Cloudflare's API, such as rocket_loader."
            )
        if value is None:
            raise invalid_input(f"settings has no value for {name}: set one, or remove the name.")
        if name == MIN_TLS and str(value).removeprefix(">=") not in TLS_VERSIONS:
            raise invalid_input(
                f"settings has '{value}' for {MIN_TLS}: use one of {', '.join(TLS_VERSIONS)}, or '>=1.2' for "
                "that version or a higher one."
            )


def request_value(api: CloudflareApi, call: Call) -> tuple[Any, bool]:
    """Send a request about a setting; return the value in the response and whether it is editable."""
    result = api.call(call)
    if not isinstance(result, dict) or "value" not in result:
        raise api.unexpected(call.purpose)
    return result["value"], result.get("editable") is not False


class Settings:
    """The settings that `wanted` names."""

    key = "settings"

    def __init__(
        self, api: CloudflareApi, zone: Zone, wanted: Mapping[str, Any], lower_min_tls: bool = False
    ) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/settings/"
        self._wanted = dict(wanted)
        self._lower_min_tls = lower_min_tls
        self.warnings: list[str] = []

    def read(self) -> list[Resource]:
        """Read each setting."""
        resources = [self._resource(name, value) for name, value in self._wanted.items()]
        if "ssl" in self._wanted and AUTOMATIC_MODE not in self._wanted:
            resources.extend(self._automatic_mode())
        return in_writing_order(resources)

    def permission_probes(self) -> list[Call]:
        """Return a write to a setting that does not exist: refused for its name to a token that may write."""
        path = f"{self._path}permission_check"
        purpose = "check the permission to write settings"
        return [Call("patch", path, purpose, PERMISSION, body={"value": "on"})]

    def state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return each setting's value by its name."""
        return {name.removeprefix("setting "): value for name, value in values.items()}

    def _resource(self, name: str, value: Any) -> Resource:
        purpose = f"read zone setting {name}"
        call = Call("get", self._path + name, purpose, PERMISSION, refusals=REFUSALS)
        try:
            before, editable = request_value(self._api, call)
        except CloudflareFailure as failure:
            resource = Resource(f"setting {name}", None, value, lambda: None)
            if failure.reason in UNAVAILABLE:
                resource.locked = failure
            elif 1006 in failure.codes:
                resource.invalid = failure
            else:
                raise
            return resource
        wanted = at_least(value, before) if name == MIN_TLS else normalize(value, before)
        purpose = f"set zone setting {name} to {to_text(wanted)}"
        locked = None if editable else CloudflareFailure(f"Can't {purpose}: {LOCKED.text}", LOCKED.reason)
        call = Call(
            "patch", self._path + name, purpose, PERMISSION, body={"value": wanted}, refusals=REFUSALS
        )
        resource = Resource(
            f"setting {name}",
            before,
            wanted,
            lambda: request_value(self._api, call)[0],
            locked,
            zone_wide=True,
        )
        if name == MIN_TLS and not self._lower_min_tls and str(wanted) < str(before):
            resource.invalid = CloudflareFailure(
                f"Can't {purpose}: the zone requires {before}, and all its hosts would accept weaker TLS; "
                f"use {before} or '>={wanted}', or allow it with lower_min_tls_version "
                "(cloudflare_zone_lower_min_tls_version).",
                Reason.REJECTED,
            )
        return resource

    def _automatic_mode(self) -> list[Resource]:
        """Return the setting that keeps Cloudflare from changing the SSL mode, unless it is unavailable."""
        try:
            resource = self._resource(AUTOMATIC_MODE, "custom")
        except CloudflareFailure as failure:
            self.warnings.append(automatic_mode_warning(failure))
            return []
        obstacle = resource.invalid or (resource.locked if resource.differs else None)
        if obstacle:
            self.warnings.append(automatic_mode_warning(obstacle))
            return []
        resource.optional = True
        return [resource]


def automatic_mode_warning(failure: CloudflareFailure) -> str:
    """Return the warning for an SSL mode that can't be fixed by ssl_automatic_mode."""
    return f"Cloudflare may change the SSL mode on its own. {failure}"


def in_writing_order(resources: Sequence[Resource]) -> list[Resource]:
    """Return the settings in an order in which every intermediate state serves the site.

    What needs HTTPS is turned off before a lower SSL mode is written, and on after a higher one.
    """

    def rank(resource: Resource) -> int:
        if resource.name == f"setting {AUTOMATIC_MODE}":
            return 0
        if resource.name == "setting ssl":
            return 2
        return 1 if resource.wanted == "off" else 3

    return sorted(resources, key=rank)


class Argo:
    """Argo Smart Routing, on or off."""

    key = "argo"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: bool) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/argo/smart_routing"
        self._wanted = wanted
        self.warnings: list[str] = []

    def read(self) -> list[Resource]:
        """Read it; it is off for a zone that is not entitled to it."""
        call = Call("get", self._path, f"read {ARGO}", PERMISSION, refusals=ARGO_REFUSALS)
        try:
            before, editable = request_value(self._api, call)
        except CloudflareFailure as failure:
            if failure.reason is not Reason.NOT_ENTITLED:
                raise
            before, editable = "off", False
        purpose = f"turn {ARGO} {'on' if self._wanted else 'off'}"
        locked = CloudflareFailure(f"Can't {purpose}: {ARGO_NOT_ENTITLED.text}", ARGO_NOT_ENTITLED.reason)
        resource = Resource(ARGO, before == "on", self._wanted, self._write, zone_wide=True)
        resource.locked = None if editable else locked
        return [resource]

    def permission_probes(self) -> list[Call]:
        """Return none: Argo needs the permission that settings need."""
        return []

    def state(self, values: dict[str, Any]) -> bool:
        """Return whether it is on."""
        return bool(values[ARGO])

    def _write(self) -> bool:
        value = "on" if self._wanted else "off"
        call = Call(
            "patch",
            self._path,
            f"turn {ARGO} {value}",
            PERMISSION,
            body={"value": value},
            refusals=ARGO_REFUSALS,
        )
        return bool(request_value(self._api, call)[0] == "on")
