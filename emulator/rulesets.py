"""The zone's rulesets: one entry point for each phase that the edge applies, with Cloudflare's versioning.

A write makes a new version of the ruleset and of each rule that it changes. A rule keeps its identifier when
a write names it by `id` or by `ref`. Codes and messages are copied from responses of Cloudflare's API.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator.common import ApiError, Call, Route, Store, StoredList, find, identifier, now
from emulator.expressions import ExpressionError, Facts, parse

CACHE, CONFIG, COMPRESSION = (
    "http_request_cache_settings",
    "http_config_settings",
    "http_response_compression",
)
# For each phase the permission that a token needs, and the only action of its rules.
PHASES = {
    CACHE: ("Cache Rules", "set_cache_settings"),
    CONFIG: ("Config Rules", "set_config"),
    COMPRESSION: ("Response Compression", "compress_response"),
}
# The maximum number of rules in a phase, by plan (Cloudflare's page "Cache Rules").
LIMITS = {"free": 10, "pro": 25, "business": 50, "enterprise": 300}
RULE_FIELDS = {
    "id", "ref", "expression", "action", "action_parameters", "description", "enabled", "logging",
    "categories", "exposed_credential_check", "ratelimit",
}  # fmt: skip
RULESET_FIELDS = {"rules", "name", "description"}
POLISH = ("off", "lossless", "lossy", "webp")
ALGORITHMS = ("none", "auto", "default", "gzip", "brotli", "zstd")
SSL = ("off", "flexible", "full", "strict", "origin_pull")
CONFIG_FLAGS = {
    "automatic_https_rewrites", "bic", "content_converter", "email_obfuscation", "fonts",
    "hotlink_protection", "mirage", "opportunistic_encryption", "redirects_for_ai_training",
    "rocket_loader", "server_side_excludes", "sxg",
}  # fmt: skip
CONFIG_WORDS: dict[str, tuple[str, ...]] = {
    "polish": POLISH,
    "ssl": SSL,
    "security_level": ("off", "essentially_off", "low", "medium", "high", "under_attack"),
    "request_body_buffering": ("none", "standard", "full"),
    "response_body_buffering": ("none", "standard"),
}
CONFIG_SWITCHES = {"disable_apps", "disable_pay_per_crawl", "disable_rum", "disable_zaraz"}
CACHE_FLAGS = {
    "cache", "origin_cache_control", "origin_error_page_passthru", "respect_strong_etags", "strip_etags",
    "strip_last_modified", "strip_set_cookie",
}  # fmt: skip
CACHE_OBJECTS = {
    "browser_ttl", "cache_key", "cache_reserve", "edge_ttl", "serve_stale", "shared_dictionary", "vary",
}  # fmt: skip


class Rulesets(StoredList):
    """The entry points of the zone's phases, each with its rules."""

    key = "rulesets"

    def __init__(self, store: Store, plan: Callable[[], str]) -> None:
        super().__init__(store)
        self._plan = plan

    def parameters(self, phase: str, facts: Facts) -> dict[str, Any]:
        """Return the action parameters of a phase's enabled rules that match a request; later rules win."""
        merged: dict[str, Any] = {}
        for ruleset in self.all:
            if ruleset["phase"] == phase:
                for rule in ruleset["rules"]:
                    if rule["enabled"] and parse(rule["expression"], phase == COMPRESSION)(facts):
                        merged.update(rule["action_parameters"])
        return merged

    def routes(self, zone: str) -> list[Route]:
        """Return the routes below the zone's path."""

        def by_phase(call: Call) -> Sequence[str]:
            known = PHASES.get(call.path_parameters["phase"])
            return known[:1] if known else [name for name, _ in PHASES.values()]

        def by_id(call: Call) -> Sequence[str]:
            found = [
                PHASES[ruleset["phase"]][0]
                for ruleset in self.all
                if ruleset["id"] == call.path_parameters["id"]
            ]
            return found or [name for name, _ in PHASES.values()]

        def by_any(call: Call) -> Sequence[str]:
            return [name for name, _ in PHASES.values()]

        base = zone + "/rulesets"
        one = base + r"/(?P<id>[0-9a-f]{32})"
        entry = base + r"/phases/(?P<phase>[^/]+)/entrypoint"
        return [
            Route(base, by_any, {"GET": self._list, "POST": self._create}, "rulesets"),
            Route(entry, by_phase, {"GET": self._entrypoint, "PUT": self._put_entrypoint}, "rulesets"),
            Route(one, by_id, {"GET": self._get, "PUT": self._put, "DELETE": self._delete}, "rulesets"),
            Route(one + "/rules", by_id, {"POST": self._add_rule}, "rulesets"),
            Route(
                one + r"/rules/(?P<rule>[^/]+)",
                by_id,
                {"PATCH": self._change_rule, "DELETE": self._remove_rule},
                "rulesets",
            ),
        ]

    def _list(self, call: Call) -> dict[str, Any]:
        return {"result": [{k: v for k, v in ruleset.items() if k != "rules"} for ruleset in self.all]}

    def _create(self, call: Call) -> dict[str, Any]:
        """Create the ruleset of a phase that has none."""
        _check_fields(call.body, RULESET_FIELDS | {"kind", "phase"})
        wanted = call.fields
        kind, phase, name = wanted.pop("kind", ""), wanted.pop("phase", ""), wanted.get("name")
        message = f"'{kind}' is not a valid value for kind"
        if kind != "zone":
            raise ApiError(400, 20217, message, pointer="/kind")
        if phase not in PHASES:
            raise ApiError(400, 10002, f"'{phase}' is not a valid value for phase", pointer="/phase")
        if not isinstance(name, str) or not name:
            raise _invalid(name, "name", "/name")
        if any(ruleset["phase"] == phase for ruleset in self.all):
            message += f" because exceeded maximum number of zone rulesets for phase {phase}"
            raise ApiError(400, 20217, message, pointer="/kind")
        return self._write(Call(call.path_parameters, call.query, wanted), _empty_ruleset(phase))

    def _entrypoint(self, call: Call) -> dict[str, Any]:
        phase = _phase(call)
        found = next((ruleset for ruleset in self.all if ruleset["phase"] == phase), None)
        if not found:
            raise ApiError(404, 10003, f"could not find entrypoint ruleset in the {phase} phase")
        return {"result": found}

    def _put_entrypoint(self, call: Call) -> dict[str, Any]:
        phase = _phase(call)
        found = next((ruleset for ruleset in self.all if ruleset["phase"] == phase), None)
        return self._write(call, found or _empty_ruleset(phase))

    def _get(self, call: Call) -> dict[str, Any]:
        return {"result": self._find(call)}

    def _put(self, call: Call) -> dict[str, Any]:
        return self._write(call, self._find(call))

    def _delete(self, call: Call) -> dict[str, Any]:
        found = self._find(call)
        self._store.data["rulesets"].remove(found)
        self._store.save()
        return {}

    def _find(self, call: Call) -> dict[str, Any]:
        wanted = call.path_parameters["id"]
        return find(self.all, wanted, ApiError(404, 10001, f'could not find ruleset "{wanted}"'))

    def _write(self, call: Call, before: Mapping[str, Any]) -> dict[str, Any]:
        """Replace a ruleset by the body; without rules in the body it keeps its own."""
        _check_fields(call.body, RULESET_FIELDS)
        wanted = call.fields
        after: dict[str, Any] = {
            **before,
            **{key: wanted[key] for key in ("name", "description") if key in wanted},
        }
        rules = wanted.get("rules", before["rules"])
        if not isinstance(rules, list):
            raise ApiError(400, 10012, 'invalid JSON: "rules" is not a list', pointer="/rules")
        if "rules" in wanted:
            kept = list(before["rules"])
            after["rules"] = [
                self._rule(before["phase"], rule, kept, f"/rules/{place}") for place, rule in enumerate(rules)
            ]
        return self._commit(call, after)

    def _commit(self, call: Call, ruleset: dict[str, Any]) -> dict[str, Any]:
        """Validate a ruleset, store it as a new version and return it; a dry run returns null."""
        limit = LIMITS[self._plan()]
        if len(ruleset["rules"]) > limit:
            raise ApiError(
                400, 20120,
                f"exceeded maximum number of rules in the phase {ruleset['phase']}: "
                f"{len(ruleset['rules'])} out of {limit}",
            )  # fmt: skip
        refs = [rule["ref"] for rule in ruleset["rules"]]
        for place, ref in enumerate(refs):
            if ref in refs[:place]:
                raise ApiError(
                    400, 20108,
                    f"'{ref}' is not a valid value for ref because it is not unique in the ruleset",
                    pointer=f"/rules/{place}/ref",
                )  # fmt: skip
        if call.query.get("dry_run", "").lower() == "true":
            return {"result": None}
        ruleset = {**ruleset, "version": str(int(ruleset["version"]) + 1), "last_updated": now()}
        stored = self._store.data["rulesets"]
        place = next((i for i, found in enumerate(stored) if found["id"] == ruleset["id"]), len(stored))
        stored[place : place + 1] = [ruleset]
        self._store.save()
        return {"result": ruleset}

    def _add_rule(self, call: Call) -> dict[str, Any]:
        ruleset = copy.deepcopy(self._find(call))
        position, wanted = _split_position(call)
        if "id" in wanted:
            raise ApiError(400, 10012, 'invalid JSON: unknown field "id"', pointer="/id")
        # _commit checks that the new rule's ref is unique.
        rule = self._rule(ruleset["phase"], wanted, [], "")
        rules = ruleset["rules"]
        rules.insert(len(rules) if position is None else _index(position, rules), rule)
        return self._commit(call, ruleset)

    def _change_rule(self, call: Call) -> dict[str, Any]:
        """Replace a rule by the body, or move it if the body has a position; both make one version."""
        ruleset = copy.deepcopy(self._find(call))
        rules = ruleset["rules"]
        before = _find_rule(call, rules)
        position, wanted = _split_position(call)
        after = before
        if wanted or position is None:
            after = self._rule(ruleset["phase"], {**wanted, "id": before["id"]}, [before], "")
        place = rules.index(before)
        if position is None:
            rules[place] = after
        else:
            rules.remove(before)
            rules.insert(_index(position, rules), after)
        return self._commit(call, ruleset)

    def _remove_rule(self, call: Call) -> dict[str, Any]:
        ruleset = copy.deepcopy(self._find(call))
        ruleset["rules"].remove(_find_rule(call, ruleset["rules"]))
        return self._commit(call, ruleset)

    def _rule(self, phase: str, wanted: Any, kept: list[dict[str, Any]], pointer: str) -> dict[str, Any]:
        """Validate a rule and return it as stored; removes from `kept` the rule that it replaces."""
        _check_fields(wanted, RULE_FIELDS, pointer)
        before = next(
            (
                rule
                for key in ("id", "ref")
                for rule in kept
                if wanted.get(key) is not None and rule[key] == wanted[key]
            ),
            None,
        )
        if before is not None:
            kept.remove(before)
        elif "id" in wanted:
            raise ApiError(
                400, 20019, f'could not find rule "{wanted["id"]}" in the ruleset', pointer=f"{pointer}/id"
            )
        action = PHASES[phase][1]
        if wanted.get("action") != action:
            message = f"'{wanted.get('action', '')}' is not a valid value for action"
            raise ApiError(
                400, 20016, f"{message} because it is not allowed in the phase {phase}",
                pointer=f"{pointer}/action",
            )  # fmt: skip
        _check_expression(wanted.get("expression"), phase, pointer)
        parameters = wanted.get("action_parameters")
        CHECKS[phase](parameters, f"{pointer}/action_parameters")
        for key, kind in (("description", str), ("ref", str), ("enabled", bool)):
            if key in wanted and (not isinstance(wanted[key], kind) or (key == "ref" and not wanted[key])):
                raise _invalid(wanted[key], key, f"{pointer}/{key}")
        own = before["id"] if before else identifier()
        rule = {
            "id": own,
            "version": "1",
            "ref": own,
            "description": "",
            "enabled": True,
            **{key: value for key, value in wanted.items() if key != "id"},
            "last_updated": now(),
        }
        if before:
            volatile = ("version", "last_updated")
            if all(before.get(key) == value for key, value in rule.items() if key not in volatile) and (
                before.keys() == rule.keys()
            ):
                return before
            rule["version"] = str(int(before["version"]) + 1)
        return rule


def _empty_ruleset(phase: str) -> dict[str, Any]:
    """Return a new ruleset without rules, not stored yet."""
    return {
        "id": identifier(), "name": "default", "description": "", "kind": "zone", "phase": phase,
        "version": "0", "rules": [],
    }  # fmt: skip


def _phase(call: Call) -> str:
    phase = call.path_parameters["phase"]
    if phase not in PHASES:
        raise ApiError(400, 10002, f"'{phase}' is not a valid value for phase")
    return phase


def _find_rule(call: Call, rules: list[dict[str, Any]]) -> dict[str, Any]:
    wanted, ruleset = call.path_parameters["rule"], call.path_parameters["id"]
    return find(rules, wanted, ApiError(404, 10003, f'could not find rule "{wanted}" in ruleset "{ruleset}"'))


def _split_position(call: Call) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the position that a body gives a rule, if any, and the rule itself. Raises ApiError."""
    wanted = call.fields
    if call.body != wanted:
        raise ApiError(400, 10012, "invalid JSON: the body is not an object")
    position = wanted.pop("position", None)
    if position is not None and (
        not isinstance(position, dict)
        or len(position) != 1
        or not isinstance(position.get("index", 1), int)
        or not position.keys() <= {"before", "after", "index"}
    ):
        raise _invalid(position, "position", "/position")
    return position, wanted


def _index(position: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of a position among the other rules. Raises ApiError."""
    if "index" in position:
        if not 1 <= position["index"] <= len(rules) + 1:
            raise _invalid(position["index"], "index", "/position/index")
        return int(position["index"]) - 1
    key = "before" if "before" in position else "after"
    if not position[key]:
        return 0 if key == "before" else len(rules)
    place = next((i for i, rule in enumerate(rules) if rule["id"] == position[key]), None)
    if place is None:
        raise _invalid(position[key], key, f"/position/{key}")
    return place + (key == "after")


def _check_fields(value: Any, fields: set[str], pointer: str = "") -> None:
    if not isinstance(value, dict):
        raise ApiError(400, 10012, "invalid JSON: not an object", pointer=pointer)
    if unknown := sorted(value.keys() - fields):
        raise ApiError(
            400, 10012, f'invalid JSON: unknown field "{unknown[0]}"', pointer=f"{pointer}/{unknown[0]}"
        )


def _invalid(value: object, name: str, pointer: str) -> ApiError:
    return ApiError(400, 20021, f"'{value}' is not a valid value for {name}", pointer=pointer)


def _check_expression(text: object, phase: str, pointer: str) -> None:
    start = f"'{'' if text is None else text}' is not a valid value for expression because"
    if not isinstance(text, str) or not text.strip():
        raise ApiError(400, 20125, f"{start} the expression cannot be blank", pointer=f"{pointer}/expression")
    try:
        parse(text, phase == COMPRESSION)
    except ExpressionError as error:
        raise ApiError(
            400, 20127, f"{start} could not parse filter expression: {error}", pointer=f"{pointer}/expression"
        ) from None


def _check_config(parameters: Any, pointer: str) -> None:
    _check_fields(parameters, CONFIG_FLAGS | CONFIG_WORDS.keys() | CONFIG_SWITCHES | {"autominify"}, pointer)
    if not parameters:
        raise ApiError(400, 20021, "action parameters are required for set_config", pointer=pointer)
    for name, value in parameters.items():
        flag = name in CONFIG_FLAGS and isinstance(value, bool)
        switch = name in CONFIG_SWITCHES and value is True
        word = isinstance(value, str) and value in CONFIG_WORDS.get(name, ())
        if not (flag or switch or word or (name == "autominify" and isinstance(value, dict))):
            raise _invalid(value, name, f"{pointer}/{name}")


def _check_cache(parameters: Any, pointer: str) -> None:
    others = {"additional_cacheable_ports", "read_timeout"}
    _check_fields(parameters, CACHE_FLAGS | CACHE_OBJECTS | others, pointer)
    if not parameters:
        raise ApiError(400, 20021, "action parameters are required for set_cache_settings", pointer=pointer)
    for name, value in parameters.items():
        if (name in CACHE_FLAGS and not isinstance(value, bool)) or (
            name in CACHE_OBJECTS and not isinstance(value, dict)
        ):
            raise _invalid(value, name, f"{pointer}/{name}")
    _check_ttl(parameters.get("edge_ttl", {}), f"{pointer}/edge_ttl")


def _check_ttl(ttl: Mapping[str, Any], pointer: str) -> None:
    modes = ("respect_origin", "bypass_by_default", "override_origin")
    if ttl and ttl.get("mode") not in modes:
        raise _invalid(ttl.get("mode"), "mode", f"{pointer}/mode")
    seconds = ttl.get("default", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 0:
        raise _invalid(seconds, "default", f"{pointer}/default")


def _check_compression(parameters: Any, pointer: str) -> None:
    _check_fields(parameters, {"algorithms"}, pointer)
    algorithms = parameters.get("algorithms")
    if not isinstance(algorithms, list) or not algorithms:
        raise ApiError(400, 20021, "algorithms are required for compress_response", pointer=pointer)
    for place, algorithm in enumerate(algorithms):
        if not isinstance(algorithm, dict) or algorithm.get("name") not in ALGORITHMS:
            raise _invalid(algorithm, "algorithm", f"{pointer}/algorithms/{place}")


CHECKS: dict[str, Callable[[Any, str], None]] = {
    CACHE: _check_cache,
    CONFIG: _check_config,
    COMPRESSION: _check_compression,
}
