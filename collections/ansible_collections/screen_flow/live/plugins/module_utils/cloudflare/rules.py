"""Rules in a zone's phases, each known by its `ref`, beside rules of others.

Each of ours is written by a request of its own, so that nothing of anybody else's is ever sent back: a rule
that is added, changed or moved between our read and our write stays as it is. A phase's first ruleset is made
by a request that Cloudflare refuses where there is one by now (code 20217); ours is added to that one then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .client import PLAN_CODE, Call, CloudflareApi, CloudflareFailure, Zone, unusable
from .resource import NotToBeHad, Thing

# Cloudflare's phase -> the token's permission for it.
PHASES = {
    "http_request_cache_settings": "Cache Rules Write",
    "http_config_settings": "Config Rules Write",
    "http_response_compression": "Response Compression Write",
}
FIELDS = ("action", "action_parameters", "expression", "description", "enabled")
# Somebody who edits the same rule at the same moment is met again at most this often.
ATTEMPTS = 4


def check_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    """Raise CloudflareFailure for two rules of one ref in a phase."""
    seen = [(rule["phase"], rule["ref"]) for rule in rules]
    for phase, ref in seen:
        if seen.count((phase, ref)) > 1:
            raise CloudflareFailure(f"rules has {ref} twice in {phase}: give each rule a ref of its own.")


def in_short(rule: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what of a rule is compared: what it matches and what it does. None for no rule."""
    if rule is None:
        return None
    return {"description": "", "enabled": True} | {name: rule[name] for name in FIELDS if name in rule}


class Rules:
    """The rules that `wanted` names: phase, ref, state, and what the rule is."""

    key = "rules"

    def __init__(self, api: CloudflareApi, zone: Zone, wanted: Sequence[Mapping[str, Any]]) -> None:
        self._api = api
        self._path = f"/zones/{zone.id}/rulesets"
        self._wanted = {(rule["phase"], rule["ref"]): rule for rule in wanted}
        self._rulesets: dict[str, dict[str, Any] | None] = {}
        self.warnings: list[str] = []

    def read(self) -> list[Thing]:
        """Read each phase once. Raises the failures of all phases as one, so that all are named."""
        missing: list[str] = []
        for phase in dict.fromkeys(phase for phase, _ in self._wanted):
            try:
                self._rulesets[phase] = self._fetch(phase)
            except CloudflareFailure as failure:
                if not failure.missing:
                    raise
                missing.extend(failure.missing)
                said = str(failure)
        if missing:
            raise CloudflareFailure(said, missing=missing)
        return [self._thing(phase, ref) for phase, ref in self._wanted]

    def trials(self) -> list[Call]:
        """Return each rule's write as Cloudflare's own dry run, which checks the rule as well."""
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

    def _thing(self, phase: str, ref: str) -> Thing:
        return Thing(
            f"rule {ref}",
            in_short(find(self._rulesets[phase], ref)),
            self._target(phase, ref),
            lambda: self._write(phase, ref),
        )

    def _target(self, phase: str, ref: str) -> dict[str, Any] | None:
        rule = self._wanted[phase, ref]
        return in_short(rule) if rule.get("state", "present") == "present" else None

    def _fetch(self, phase: str) -> dict[str, Any] | None:
        """Return the phase's ruleset; None where the zone has none."""
        what = f"read the rules of {phase}"
        path = f"{self._path}/phases/{phase}/entrypoint"
        try:
            found = self._api.call(Call("get", path, what, PHASES[phase]))
        except CloudflareFailure as failure:
            if failure.status == 404:
                return None
            raise
        return self._ruleset(found, what)

    def _ruleset(self, found: Any, what: str) -> dict[str, Any]:
        if not isinstance(found, dict) or "id" not in found:
            raise CloudflareFailure(unusable(what, self._api.base_url))
        return {"rules": [], "version": "0", **found}

    def _call(
        self, phase: str, ref: str, ruleset: dict[str, Any] | None, query: Mapping[str, str]
    ) -> Call | None:
        """Return the request that brings the rule from what the ruleset has to what it should have."""
        target, found = self._target(phase, ref), find(ruleset, ref)
        needs, what = PHASES[phase], f"{'write' if target else 'remove'} rule {ref} in {phase}"
        if target is None and found is None:
            return None
        if ruleset is None:
            body = {
                "name": "default",
                "kind": "zone",
                "phase": phase,
                "rules": [{"ref": ref, **(target or {})}],
            }
            return Call("post", self._path, what, needs, query, body)
        path = f"{self._path}/{ruleset['id']}/rules"
        if found is None:
            # At the end: of the rules that match, the last one decides.
            return Call("post", path, what, needs, query, {"ref": ref, **(target or {})})
        path += f"/{found['id']}"
        if target is None:
            return Call("delete", path, what, needs, query)
        return Call("patch", path, what, needs, query, {"ref": ref, **target})

    def _write(self, phase: str, ref: str) -> dict[str, Any] | None:
        """Bring one rule to what it should be, whatever others do to its phase meanwhile."""
        target = self._target(phase, ref)
        for _ in range(ATTEMPTS):
            known = self._rulesets[phase]
            if in_short(find(known, ref)) == target:
                return target
            call = self._call(phase, ref, known, {})
            if call is None:
                raise AssertionError(f"{ref} differs from its target, but nothing changes it")
            try:
                after = self._ruleset(self._api.call(call), call.what)
            except CloudflareFailure as failure:
                self._rulesets[phase] = self._fetch(phase)
                if version(self._rulesets[phase]) == version(known):
                    # Nobody was in between: it is refused for what it is.
                    if failure.codes & {PLAN_CODE} or "entitle" in str(failure):
                        raise NotToBeHad(str(failure), failure.codes, failure.status) from failure
                    raise
                self._note(phase)
                continue
            self._rulesets[phase] = after
            if int(after["version"]) > version(known) + 1:
                self._note(phase)
        if in_short(find(self._rulesets[phase], ref)) == target:
            return target
        raise CloudflareFailure(
            f"Can't write rule {ref} in {phase}: somebody else changed it {ATTEMPTS} times between our read "
            "and our write; ask who edits the zone at this moment, then run again."
        )

    def _note(self, phase: str) -> None:
        said = f"Somebody else changed the rules of {phase} between our read and our write; theirs were kept."
        if said not in self.warnings:
            self.warnings.append(said)


def find(ruleset: Mapping[str, Any] | None, ref: str) -> dict[str, Any] | None:
    """Return the rule of that ref, or None."""
    return next((rule for rule in (ruleset or {}).get("rules", []) if rule.get("ref") == ref), None)


def version(ruleset: Mapping[str, Any] | None) -> int:
    """Return a ruleset's version; each write is one more. 0 for none."""
    return int(ruleset["version"]) if ruleset else 0
