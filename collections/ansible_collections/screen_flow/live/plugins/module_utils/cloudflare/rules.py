"""Rules in a zone's phases, each identified by its `ref`, among rules that others manage.

Each managed rule is written by a separate request, so that no other rule is ever sent back: what is
added, changed or moved between the read and the write stays as it is. A phase's first ruleset is created by a
request that Cloudflare refuses where one exists by then (code 20217); the rule is then added to that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .client import Call, CloudflareApi, CloudflareFailure, Reason, Zone, invalid_input
from .resource import Resource

# Cloudflare's phase -> the token's permission for it.
PHASES = {
    "http_request_cache_settings": "Cache Rules Write",
    "http_config_settings": "Config Rules Write",
    "http_response_compression": "Response Compression Write",
}
FIELDS = ("action", "action_parameters", "expression", "description", "enabled")
# How often a write is tried while another client keeps changing the same rule.
ATTEMPTS = 4


def validate_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    """Raise CloudflareFailure for two rules with the same ref in a phase."""
    keys = [(rule["phase"], rule["ref"]) for rule in rules]
    for phase, ref in keys:
        if keys.count((phase, ref)) > 1:
            raise invalid_input(f"rules has {ref} twice in {phase}: use a different ref for each rule.")


def comparable(rule: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the fields of a rule that are compared: what it matches and what it does. None for no rule."""
    if rule is None:
        return None
    return {"description": "", "enabled": True} | {name: rule[name] for name in FIELDS if name in rule}


class Rules:
    """The rules in `wanted`, each with its phase, its ref, its state and its content."""

    key = "rules"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: Sequence[Mapping[str, Any]]) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/rulesets"
        self._wanted = {(rule["phase"], rule["ref"]): rule for rule in wanted}
        self._rulesets: dict[str, dict[str, Any] | None] = {}
        self.warnings: list[str] = []

    def read(self) -> list[Resource]:
        """Read each phase once; raises one CloudflareFailure naming the permissions that all phases lack."""
        permissions: list[str] = []
        for phase in dict.fromkeys(phase for phase, _ in self._wanted):
            try:
                self._rulesets[phase] = self._fetch(phase)
            except CloudflareFailure as failure:
                if failure.reason is not Reason.PERMISSION:
                    raise
                permissions.extend(failure.permissions)
                message = str(failure)
        if permissions:
            raise CloudflareFailure(message, Reason.PERMISSION, permissions=permissions)
        return [self._resource(phase, ref) for phase, ref in self._wanted]

    def permission_probes(self) -> list[Call]:
        """Return each rule's write as Cloudflare's own dry run, which validates the rule as well."""
        calls = [
            self._call(phase, ref, self._rulesets[phase], {"dry_run": "true"}) for phase, ref in self._wanted
        ]
        return [call for call in calls if call]

    def state(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rules in the form of the module's argument."""
        return [
            {"phase": phase, "ref": ref, "state": "present", **values[f"rule {ref}"]}
            if values[f"rule {ref}"]
            else {"phase": phase, "ref": ref, "state": "absent"}
            for phase, ref in self._wanted
        ]

    def _resource(self, phase: str, ref: str) -> Resource:
        return Resource(
            f"rule {ref}",
            comparable(find(self._rulesets[phase], ref)),
            self._target(phase, ref),
            lambda: self._write(phase, ref),
            last=self._wanted[phase, ref].get("last", False),
        )

    def _target(self, phase: str, ref: str) -> dict[str, Any] | None:
        rule = self._wanted[phase, ref]
        return comparable(rule) if rule.get("state", "present") == "present" else None

    def _fetch(self, phase: str) -> dict[str, Any] | None:
        """Return the phase's ruleset; None where the zone has none."""
        purpose = f"read the rules of {phase}"
        path = f"{self._path}/phases/{phase}/entrypoint"
        try:
            found = self._api.call(Call("get", path, purpose, PHASES[phase]))
        except CloudflareFailure as failure:
            if failure.status == 404:
                return None
            raise
        return self._ruleset(found, purpose)

    def _ruleset(self, found: Any, purpose: str) -> dict[str, Any]:
        if not isinstance(found, dict) or "id" not in found:
            raise self._api.unexpected(purpose)
        return {"rules": [], "version": "0", **found}

    def _call(
        self, phase: str, ref: str, ruleset: dict[str, Any] | None, query: Mapping[str, str]
    ) -> Call | None:
        """Return the request that brings the rule from its state in the ruleset to the wanted one."""
        target, found = self._target(phase, ref), find(ruleset, ref)
        permission, purpose = PHASES[phase], f"{'write' if target else 'remove'} rule {ref} in {phase}"
        if target is None and found is None:
            return None
        if ruleset is None:
            body = {
                "name": "default",
                "kind": "zone",
                "phase": phase,
                "rules": [{"ref": ref, **(target or {})}],
            }
            return Call("post", self._path, purpose, permission, query, body)
        path = f"{self._path}/{ruleset['id']}/rules"
        if found is None:
            # At the end, unless wanted otherwise: where several rules match, the last one decides.
            position = {"position": {"index": 1}} if self._wanted[phase, ref].get("first") else {}
            return Call("post", path, purpose, permission, query, {"ref": ref, **(target or {}), **position})
        path += f"/{found['id']}"
        if target is None:
            return Call("delete", path, purpose, permission, query)
        return Call("patch", path, purpose, permission, query, {"ref": ref, **target})

    def _write(self, phase: str, ref: str) -> dict[str, Any] | None:
        """Bring one rule to its wanted state, whatever other clients do to its phase at the same time."""
        target = self._target(phase, ref)
        for _ in range(ATTEMPTS):
            known = self._rulesets[phase]
            if comparable(find(known, ref)) == target:
                return target
            call = self._call(phase, ref, known, {})
            if call is None:
                raise AssertionError(f"{ref} differs from its target, but nothing changes it")
            try:
                after = self._ruleset(self._api.call(call), call.purpose)
            except CloudflareFailure:
                self._rulesets[phase] = self._fetch(phase)
                if version(self._rulesets[phase]) == version(known):
                    # No other client wrote: the rule itself is refused.
                    raise
                self._warn_of_other_client(phase)
                continue
            self._rulesets[phase] = after
            if int(after["version"]) > version(known) + 1:
                self._warn_of_other_client(phase)
        if comparable(find(self._rulesets[phase], ref)) == target:
            return target
        raise CloudflareFailure(
            f"Can't write rule {ref} in {phase}: another client changed it {ATTEMPTS} times between the read "
            "and the write; find out who is editing the zone, then run again.",
            Reason.CONFLICT,
        )

    def _warn_of_other_client(self, phase: str) -> None:
        warning = f"Another client changed the rules of {phase} during this run; its changes were kept."
        if warning not in self.warnings:
            self.warnings.append(warning)


def find(ruleset: Mapping[str, Any] | None, ref: str) -> dict[str, Any] | None:
    """Return the rule with that ref, or None."""
    return next((rule for rule in (ruleset or {}).get("rules", []) if rule.get("ref") == ref), None)


def version(ruleset: Mapping[str, Any] | None) -> int:
    """Return a ruleset's version; each write is one more. 0 for none."""
    return int(ruleset["version"]) if ruleset else 0
