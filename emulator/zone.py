"""The zone: its settings and plan, the rules that Cloudflare applies to them, and what else belongs to it."""

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
# The operators that a name filter of the zone list takes, as in name=contains:example.
NAME_FILTERS: dict[str, Callable[[str, str], bool]] = {
    "equal": str.__eq__,
    "not_equal": str.__ne__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}

Value = str | int | float


@dataclass(frozen=True)
class Rule:
    """What one zone setting accepts: its default, its values or bounds, and the plan that may change it."""

    default: Value
    values: tuple[Value, ...] = ON_OFF
    bounds: tuple[float, float] | None = None
    plan: str = "free"
    refusal: tuple[int, str] = (1057, "{id} cannot be modified for this zone")

    def accepts(self, value: object) -> bool:
        """Tell whether `value` is one of the setting's; JSON booleans are no numbers."""
        if self.bounds:
            return (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and self.bounds[0] <= value <= self.bounds[1]
            )
        return value in self.values


# The defaults of a free zone, except for the three that break the site of the guide: ssl flexible,
# WebSockets off, Rocket Loader on. Names, values and plans: Cloudflare's published API description.
SETTINGS: dict[str, Rule] = {
    "0rtt": Rule("off"),
    "always_online": Rule("off"),
    "always_use_https": Rule("off"),
    "automatic_https_rewrites": Rule("on"),
    "browser_cache_ttl": Rule(14400, bounds=(0, 31536000)),
    "browser_check": Rule("on"),
    "cache_level": Rule("aggressive", ("aggressive", "basic", "simplified")),
    "development_mode": Rule("off"),
    "early_hints": Rule("off"),
    "email_obfuscation": Rule("on"),
    "hotlink_protection": Rule("off"),
    "http2": Rule("on", plan="pro"),
    "http3": Rule("off"),
    "ip_geolocation": Rule("on"),
    "ipv6": Rule("on"),
    "max_upload": Rule(100, (*range(100, 501, 25), 1000), plan="business"),
    "min_tls_version": Rule("1.0", ("1.0", "1.1", "1.2", "1.3")),
    "opportunistic_encryption": Rule("on"),
    "orange_to_orange": Rule(
        "off", plan="enterprise",
        refusal=(1024, "It is not possible to change Orange To Orange settings for this zone."),
    ),
    "polish": Rule("off", ("off", "lossless", "lossy"), plan="pro"),
    "proxy_read_timeout": Rule(125, bounds=(0.05, 6000), plan="enterprise"),
    "response_buffering": Rule("off", plan="enterprise"),
    "rocket_loader": Rule("on"),
    "security_level": Rule("medium", ("off", "essentially_off", "low", "medium", "high", "under_attack")),
    "sort_query_string_for_cache": Rule("off", plan="enterprise"),
    "ssl": Rule("flexible", ("off", "flexible", "full", "strict")),
    "ssl_automatic_mode": Rule("auto", ("auto", "custom")),
    "tls_1_3": Rule("on", ("on", "off", "zrt")),
    "tls_client_auth": Rule("off"),
    "true_client_ip_header": Rule(
        "off", plan="enterprise",
        refusal=(1025, "It is not possible to change Visitor IP settings for this zone."),
    ),
    "websockets": Rule("off"),
}  # fmt: skip


@dataclass(frozen=True)
class ZoneDefaults:
    """The state that a zone starts with and that a reset restores."""

    name: str
    plan: str = "free"
    settings: Mapping[str, Value] = field(default_factory=dict)
    origins: Sequence[str] = ()


class Zone:
    """One zone with its rules. Every change is written to its file before it is answered."""

    def __init__(self, file: Path, defaults: ZoneDefaults) -> None:
        """Read the zone from `file`, or make it from `defaults`. Authorities lie beside it.

        Raises ValueError when the file holds another zone or no zone, or `defaults` has a value out of range.
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
        """Return to the fresh zone; its identifiers stay."""
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

    # What both the API and the edge read.

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
        """Return a setting's value. Raises KeyError for a name that Cloudflare does not know."""
        entry = self._state["settings"].get(setting, {})
        value: Value = entry.get("value", SETTINGS[setting].default)
        return value

    def on(self, setting: str) -> bool:
        """Tell whether an on/off setting is on."""
        return self.value(setting) == "on"

    def describe(self) -> dict[str, Any]:
        """Return the zone as the API shows it."""
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

    # What the API does, with Cloudflare's refusals.

    def routes(self, zone: str) -> list[Route]:
        """Return the routes of the zone itself and of all that belongs to it, below the zone's path."""
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
        return {"result": self.setting(call.found["name"])}

    def _set_setting(self, call: Call) -> dict[str, Any]:
        return {"result": self.change_setting(call.found["name"], call.fields.get("value"))}

    def setting(self, setting: str) -> dict[str, Any]:
        """Return a setting as the API shows it. Raises ApiError 1006 for an unknown name."""
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
        """Set a setting as the API does and return it.

        Raises ApiError: 1006 unknown name, 1024, 1025 or 1057 not modifiable on this plan, 1007 or 1008
        invalid value.
        """
        if not self.setting(setting)["editable"]:
            code, message = SETTINGS[setting].refusal
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
        """Return Argo Smart Routing as the API shows it. Raises ApiError 1015 on the free plan.

        Cloudflare sells it apart from the plan; here every paid plan has it.
        """
        if self.plan == "free":
            raise ApiError(401, 1015, "Zone is not entitled to use Argo Smart Routing")
        entry = self._state.setdefault("argo", {"value": "off", "modified_on": self._state["created_on"]})
        return {"result": {"id": "smart_routing", "editable": True, **entry}}

    def change_argo(self, value: object) -> dict[str, Any]:
        """Turn Argo on or off and return it. Raises ApiError: 1015 as argo() does, 1007 for another value."""
        self.argo()
        if value not in ON_OFF:
            raise ApiError(400, 1007, "Invalid value for zone setting smart_routing")
        self._state["argo"] = {"value": value, "modified_on": now()}
        self.store.save()
        return self.argo()

    def _entitled(self, setting: str) -> bool:
        plans = list(PLANS)
        return plans.index(self.plan) >= plans.index(SETTINGS[setting].plan)

    # What a test or a demo sets directly, past plan and token.

    def put_settings(self, settings: Mapping[str, Any]) -> None:
        """Set values, or {"value":…, "editable":…}, past the plan. Raises ValueError and changes nothing."""
        changes: dict[str, dict[str, Any]] = {}
        for name, wanted in settings.items():
            if name not in SETTINGS:
                raise ValueError(f"setting {name!r} is unknown; known are {', '.join(SETTINGS)}")
            change = dict(wanted) if isinstance(wanted, Mapping) else {"value": wanted}
            if unknown := change.keys() - {"value", "editable"}:
                raise ValueError(
                    f"setting {name!r} takes value and editable, not {', '.join(sorted(unknown))}"
                )
            rule = SETTINGS[name]
            if "value" in change and not rule.accepts(change["value"]):
                allowed = rule.bounds and f"a number from {rule.bounds[0]:g} to {rule.bounds[1]:g}"
                allowed = allowed or "one of " + ", ".join(map(str, rule.values))
                raise ValueError(f"setting {name!r} takes {allowed}, not {change['value']!r}")
            if not isinstance(change.get("editable", True), bool):
                raise ValueError(f"setting {name!r}: editable is true or false, not {change['editable']!r}")
            changes[name] = change
        for name, change in changes.items():
            self._state["settings"].setdefault(name, {}).update(change, modified_on=now())
        self.store.save()

    def put_plan(self, plan: str) -> None:
        """Move the zone to another plan. Raises ValueError for a plan that does not exist."""
        if plan not in PLANS:
            raise ValueError(f"plan {plan!r} is unknown; known are {', '.join(PLANS)}")
        self._state["plan"] = plan
        self.store.save()
