"""The zone: its plan and settings with their constraints, and its DNS, rulesets and certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.certificates import Authority
from emulator.common import ApiError, Call, Route, Store, identifier, needs, now, page
from emulator.dns import Records, record_for
from emulator.origin_ca import OriginCa
from emulator.origin_pulls import OriginPulls
from emulator.rulesets import Rulesets

PLANS = {
    "free": "Free Website",
    "pro": "Pro Website",
    "business": "Business Website",
    "enterprise": "Enterprise Website",
}
ON_OFF = ("on", "off")
# Operators of the zone list's name filter, as in name=contains:example.
NAME_FILTERS: dict[str, Callable[[str, str], bool]] = {
    "equal": str.__eq__,
    "not_equal": str.__ne__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}

Value = str | int | float


@dataclass(frozen=True)
class Setting:
    """A zone setting: its default, its values or bounds, and the lowest plan that can change it."""

    default: Value
    values: tuple[Value, ...] = ON_OFF
    bounds: tuple[float, float] | None = None
    plan: str = "free"
    not_editable: tuple[int, str] = (1057, "{id} cannot be modified for this zone")

    def accepts(self, value: object) -> bool:
        """Whether `value` is valid; JSON booleans are not numbers."""
        if self.bounds:
            return (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and self.bounds[0] <= value <= self.bounds[1]
            )
        return value in self.values


# The defaults of a new zone, except for three that break the site of the deployment guide: ssl flexible,
# WebSockets off, Rocket Loader on. Names, values and plans: Cloudflare's published API description.
SETTINGS: dict[str, Setting] = {
    "0rtt": Setting("off"),
    "always_online": Setting("off"),
    "always_use_https": Setting("off"),
    "automatic_https_rewrites": Setting("on"),
    "browser_cache_ttl": Setting(14400, bounds=(0, 31536000)),
    "browser_check": Setting("on"),
    "cache_level": Setting("aggressive", ("aggressive", "basic", "simplified")),
    "development_mode": Setting("off"),
    "early_hints": Setting("off"),
    "email_obfuscation": Setting("on"),
    "hotlink_protection": Setting("off"),
    "http2": Setting("on", plan="pro"),
    "http3": Setting("off"),
    "ip_geolocation": Setting("on"),
    "ipv6": Setting("on"),
    "max_upload": Setting(100, (*range(100, 501, 25), 1000), plan="business"),
    "min_tls_version": Setting("1.0", ("1.0", "1.1", "1.2", "1.3")),
    "opportunistic_encryption": Setting("on"),
    "orange_to_orange": Setting(
        "off", plan="enterprise",
        not_editable=(1024, "It is not possible to change Orange To Orange settings for this zone."),
    ),
    "polish": Setting("off", ("off", "lossless", "lossy"), plan="pro"),
    "proxy_read_timeout": Setting(125, bounds=(0.05, 6000), plan="enterprise"),
    "response_buffering": Setting("off", plan="enterprise"),
    "rocket_loader": Setting("on"),
    "security_level": Setting("medium", ("off", "essentially_off", "low", "medium", "high", "under_attack")),
    "sort_query_string_for_cache": Setting("off", plan="enterprise"),
    "ssl": Setting("flexible", ("off", "flexible", "full", "strict")),
    "ssl_automatic_mode": Setting("auto", ("auto", "custom")),
    "tls_1_3": Setting("on", ("on", "off", "zrt")),
    "tls_client_auth": Setting("off"),
    "true_client_ip_header": Setting(
        "off", plan="enterprise",
        not_editable=(1025, "It is not possible to change Visitor IP settings for this zone."),
    ),
    "websockets": Setting("off"),
}  # fmt: skip


@dataclass(frozen=True)
class Fresh:
    """The state that a zone starts with and that a reset restores."""

    name: str
    plan: str = "free"
    settings: Mapping[str, Value] = field(default_factory=dict)
    origins: Sequence[str] = ()


class Zone:
    """One zone. Every change is written to its file before the response."""

    def __init__(self, file: Path, defaults: Fresh) -> None:
        """Read the zone from `file`, or create it from `defaults`; its authorities are in the same folder.

        Raises ValueError when the file does not hold this zone, or when `defaults` has an invalid value.
        """
        self._defaults = defaults
        self.store = Store(file)
        self.dns = Records(self.store)
        self.rulesets = Rulesets(self.store, lambda: self.plan)
        authority = Authority.load_or_create(file.parent, "origin-ca", "Origin CA")
        self.origin_ca = OriginCa(self.store, authority)
        self.origin_pulls = OriginPulls(self.store)
        if not self.store.load(defaults.name):
            self.reset()

    def reset(self) -> None:
        """Restore the initial state and keep the identifiers."""
        kept = self.store.data
        self.store.data = {
            "id": kept.get("id", identifier()),
            "account_id": kept.get("account_id", identifier()),
            "name": self._defaults.name,
            "created_on": kept.get("created_on", now()),
            "plan": self._defaults.plan,
            "settings": {},
        }
        for part in (self.rulesets, self.origin_ca, self.origin_pulls):
            part.clear()
        self.put_settings(self._defaults.settings)
        self.dns.put([record_for(self._defaults.name, origin) for origin in self._defaults.origins])

    @property
    def _state(self) -> dict[str, Any]:
        return self.store.data

    # Read by the API and the edge.

    @property
    def id(self) -> str:
        """The zone's identifier."""
        return str(self._state["id"])

    @property
    def name(self) -> str:
        """The zone's domain name, in lower case."""
        return str(self._state["name"])

    @property
    def plan(self) -> str:
        """The plan's short name: free, pro, business or enterprise."""
        return str(self._state["plan"])

    def value(self, setting: str) -> Value:
        """Return a setting's value. Raises KeyError for an unknown name."""
        entry = self._state["settings"].get(setting, {})
        value: Value = entry.get("value", SETTINGS[setting].default)
        return value

    def on(self, setting: str) -> bool:
        """Whether an on/off setting is on."""
        return self.value(setting) == "on"

    def describe(self) -> dict[str, Any]:
        """Return the zone as the API does."""
        state = self._state
        account = {"id": state["account_id"], "name": "Emulated account"}
        return {
            "id": self.id,
            "name": self.name,
            "status": "active",
            "paused": False,
            "type": "full",
            "development_mode": 0,
            "name_servers": ["ada.ns.cloudflare.com", "bob.ns.cloudflare.com"],
            "original_name_servers": None,
            "original_registrar": None,
            "original_dnshost": None,
            "modified_on": state["modified_on"],
            "created_on": state["created_on"],
            "activated_on": state["created_on"],
            "meta": {
                "step": 2,
                "custom_certificate_quota": 0,
                "page_rule_quota": 3,
                "phishing_detected": False,
            },
            "owner": {"id": account["id"], "type": "user", "name": account["name"]},
            "account": account,
            "permissions": ["#zone:read", "#zone_settings:read", "#zone_settings:edit", "#dns_records:read"],
            "plan": {
                "id": f"{list(PLANS).index(self.plan):032x}",
                "name": PLANS[self.plan],
                "price": 0,
                "currency": "USD",
                "frequency": "",
                "is_subscribed": self.plan != "free",
                "can_subscribe": False,
                "legacy_id": self.plan,
                "legacy_discount": False,
                "externally_managed": False,
            },
        }

    # The API, with Cloudflare's errors.

    def routes(self, zone: str) -> list[Route]:
        """Return the routes of the zone and its parts; `zone` is the path of a zone, a regular expression."""
        anything = needs("Zone", "Zone Settings", "DNS", "SSL and Certificates", "Analytics")
        settings = {"GET": self._get_setting, "PATCH": self._set_setting}
        return [
            Route("/zones", needs("Zone"), {"GET": self._list}),
            Route(zone, anything, {"GET": lambda call: {"result": self.describe()}}),
            Route(
                zone + r"/settings/ssl_automatic_mode",
                needs("Zone Settings", "SSL and Certificates"),
                {
                    "GET": lambda call: {"result": self.setting("ssl_automatic_mode")},
                    "PATCH": lambda call: {
                        "result": self.change_setting("ssl_automatic_mode", call.fields.get("value"))
                    },
                },
            ),
            Route(zone + r"/settings/(?P<name>[^/]+)", needs("Zone Settings"), settings),
            Route(
                zone + "/argo/smart_routing",
                needs("Zone Settings"),
                {
                    "GET": lambda call: self.argo(),
                    "PATCH": lambda call: self.change_argo(call.fields.get("value")),
                },
                "argo",
            ),
            *self.dns.routes(zone),
            *self.rulesets.routes(zone),
            *self.origin_ca.routes(),
            *self.origin_pulls.routes(zone),
        ]

    def _list(self, call: Call) -> dict[str, Any]:
        wanted = call.query.get("name")
        zones = [self.describe()]
        if wanted is not None:
            operator, colon, operand = wanted.partition(":")
            test = NAME_FILTERS.get(operator) if colon else str.__eq__
            zones = [
                zone for zone in zones if test and test(zone["name"], (operand if colon else wanted).lower())
            ]
        zones = [
            zone
            for zone in zones
            if call.query.get("status") in (None, zone["status"])
            and call.query.get("account.id") in (None, zone["account"]["id"])
        ]
        return page(call, zones, per_page=20)

    def _get_setting(self, call: Call) -> dict[str, Any]:
        return {"result": self.setting(call.path_parameters["name"])}

    def _set_setting(self, call: Call) -> dict[str, Any]:
        return {"result": self.change_setting(call.path_parameters["name"], call.fields.get("value"))}

    def setting(self, setting: str) -> dict[str, Any]:
        """Return a setting as the API does. Raises ApiError 1006 for an unknown name."""
        if setting not in SETTINGS:
            raise ApiError(400, 1006, f"Unrecognized zone setting name: {setting}")
        entry = self._state["settings"].get(setting, {})
        result = {
            "id": setting,
            "value": self.value(setting),
            "modified_on": entry.get("modified_on"),
            "editable": entry.get("editable", self._entitled(setting)),
        }
        if setting == "ssl":
            result |= {"certificate_status": "active", "validation_errors": []}
        if setting == "ssl_automatic_mode":
            result["modified_on"] = result["modified_on"] or self._state["created_on"]
            result["next_scheduled_scan"] = None
        return result

    def change_setting(self, setting: str, value: object) -> dict[str, Any]:
        """Change a setting as the API does and return it.

        Raises ApiError: 1006 unknown name; 1024, 1025 or 1057 not modifiable on this plan; 1007 or 1008
        invalid value.
        """
        if not self.setting(setting)["editable"]:
            code, message = SETTINGS[setting].not_editable
            raise ApiError(400, code, message.format(id=setting))
        if not SETTINGS[setting].accepts(value):
            if setting == "ssl_automatic_mode":
                message = "Invalid SSL/TLS encryption configuration value, only auto or custom accepted"
                raise ApiError(400, 1008, message, result=self.setting(setting))
            raise ApiError(400, 1007, f"Invalid value for zone setting {setting}")
        self._state["settings"].setdefault(setting, {}).update(value=value, modified_on=now())
        self.store.save()
        return self.setting(setting)

    def argo(self) -> dict[str, Any]:
        """Return Argo Smart Routing as the API does. Raises ApiError 1015 on the free plan.

        Cloudflare sells it separately; here every paid plan includes it.
        """
        if self.plan == "free":
            raise ApiError(401, 1015, "Zone is not entitled to use Argo Smart Routing")
        entry = self._state.setdefault("argo", {"value": "off", "modified_on": self._state["created_on"]})
        return {"result": {"id": "smart_routing", "editable": True, **entry}}

    def change_argo(self, value: object) -> dict[str, Any]:
        """Turn Argo on or off and return it. Raises ApiError: 1015 as argo() does, 1007 invalid value."""
        self.argo()
        if value not in ON_OFF:
            raise ApiError(400, 1007, "Invalid value for zone setting smart_routing")
        self._state["argo"] = {"value": value, "modified_on": now()}
        self.store.save()
        return self.argo()

    def _entitled(self, setting: str) -> bool:
        plans = list(PLANS)
        return plans.index(self.plan) >= plans.index(SETTINGS[setting].plan)

    # For tests and demos, without the checks of plan and token.

    def put_settings(self, settings: Mapping[str, Any]) -> None:
        """Set values or {"value", "editable"}, whatever the plan. Raises ValueError, without a change."""
        changes: dict[str, dict[str, Any]] = {}
        for name, wanted in settings.items():
            if name not in SETTINGS:
                raise ValueError(f"setting {name!r} is unknown; known: {', '.join(SETTINGS)}")
            change = dict(wanted) if isinstance(wanted, Mapping) else {"value": wanted}
            if unknown := change.keys() - {"value", "editable"}:
                raise ValueError(
                    f"setting {name!r} takes value and editable, not {', '.join(sorted(unknown))}"
                )
            setting = SETTINGS[name]
            if "value" in change and not setting.accepts(change["value"]):
                bounds = setting.bounds
                allowed = bounds and f"a number from {bounds[0]:g} to {bounds[1]:g}"
                allowed = allowed or "one of " + ", ".join(map(str, setting.values))
                raise ValueError(f"setting {name!r} takes {allowed}, not {change['value']!r}")
            if not isinstance(change.get("editable", True), bool):
                raise ValueError(
                    f"setting {name!r}: editable must be true or false, not {change['editable']!r}"
                )
            changes[name] = change
        for name, change in changes.items():
            self._state["settings"].setdefault(name, {}).update(change, modified_on=now())
        self.store.save()

    def put_plan(self, plan: str) -> None:
        """Move the zone to another plan. Raises ValueError for an unknown plan."""
        if plan not in PLANS:
            raise ValueError(f"plan {plan!r} is unknown; known: {', '.join(PLANS)}")
        self._state["plan"] = plan
        self.store.save()
