"""One run over a zone's resources: read and compare all of them, check the token, then write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .client import TOKENS_PAGE, CloudflareApi, CloudflareFailure, Reason, Zone
from .resource import Resource, ResourceType, make_diff, to_text
from .scope import affected_hosts
from .settings import UNAVAILABLE, automatic_mode_warning


def missing_permissions(permissions: Sequence[str]) -> CloudflareFailure:
    """Return the failure that names all permissions that the token lacks."""
    names = list(dict.fromkeys(permissions))
    lacks = "a permission" if len(names) == 1 else f"{len(names)} permissions"
    return CloudflareFailure(
        f"The API token is valid but lacks {lacks}: add {', '.join(names)} for this zone to it at "
        f"{TOKENS_PAGE}. Nothing was written.",
        Reason.PERMISSION,
        permissions=names,
    )


class Run:
    """One run over a zone: what was found, what was written, and what is returned about it."""

    def __init__(
        self,
        api: CloudflareApi,
        zone: Zone,
        types: Sequence[ResourceType],
        tolerant: bool,
        hosts: Sequence[str] = (),
    ) -> None:
        self.api = api
        self.zone = zone
        self.types = types
        self.tolerant = tolerant
        self.hosts = hosts
        self.affected: list[str] | None = None
        self.resources: dict[str, list[Resource]] = {}
        self.values: dict[str, Any] = {}
        self.changed: list[Resource] = []
        self.unavailable: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def read(self) -> None:
        """Read everything; raises CloudflareFailure with all missing permissions or all locked resources."""
        permissions: list[str] = []
        for resource_type in self.types:
            try:
                self.resources[resource_type.key] = resource_type.read()
            except CloudflareFailure as failure:
                if failure.reason is not Reason.PERMISSION:
                    raise
                permissions.extend(failure.permissions)
        if permissions:
            raise missing_permissions(permissions)
        obstacles = [resource.invalid for resource in self.all() if resource.invalid]
        for resource in self.all():
            if resource.differs and resource.locked:
                self.record_unavailable(resource, resource.locked)
                if not self.tolerant:
                    obstacles.append(resource.locked)
        if obstacles:
            raise obstacles[0].with_message(" ".join([*map(str, obstacles), "Nothing was written."]))
        self.values = {resource.name: resource.before for resource in self.all()}

    def all(self) -> list[Resource]:
        """Return every resource, in the order of writing."""
        return [resource for resource_type in self.types for resource in self.resources[resource_type.key]]

    def pending(self) -> list[Resource]:
        """Return the resources that have to be written."""
        pending = [resource for resource in self.all() if resource.differs and not resource.locked]
        return sorted(pending, key=lambda resource: resource.last)

    def record_unavailable(self, resource: Resource, failure: CloudflareFailure) -> None:
        """Record that the zone can't have the wanted value."""
        self.unavailable.append(
            {
                "resource": resource.name,
                "wanted": resource.wanted,
                "found": resource.before,
                "reason": str(failure),
            }
        )
        if self.tolerant:
            self.warnings.append(f"{failure} It stays as it is.")

    def name_affected_hosts(self) -> None:
        """Name the other hosts that the writes will affect; raises CloudflareFailure."""
        if changing := [resource for resource in self.pending() if resource.zone_wide]:
            self.affected = affected_hosts(self.api, self.zone, self.hosts, changing)

    def plan(self) -> None:
        """Record what would be written; raises CloudflareFailure."""
        self.name_affected_hosts()
        for resource in self.pending():
            self.record_change(resource, resource.wanted)

    def check_permissions(self) -> None:
        """Raise CloudflareFailure naming every permission that the token lacks, before the first write."""
        permissions: list[str] = []
        for call in (call for resource_type in self.types for call in resource_type.permission_probes()):
            try:
                self.api.call(call)
            except CloudflareFailure as failure:
                # Any other refusal is reported by the write itself.
                permissions.extend(failure.permissions)
        if permissions:
            raise missing_permissions(permissions)

    def write(self) -> None:
        """Write what differs; raises CloudflareFailure, naming what was and what was not written."""
        pending = self.pending()
        if pending:
            self.name_affected_hosts()
            self.check_permissions()
        for position, resource in enumerate(pending):
            try:
                value = resource.write()
            except CloudflareFailure as failure:
                if resource.optional:
                    self.warnings.append(automatic_mode_warning(failure))
                    continue
                if failure.reason in UNAVAILABLE:
                    self.record_unavailable(resource, failure)
                    if self.tolerant:
                        continue
                raise self.partial_failure(failure, pending[position + 1 :]) from failure
            self.record_change(resource, value)
            if value != resource.wanted:
                self.warnings.append(
                    f"{resource.name} was set to {to_text(resource.wanted)}, but Cloudflare stored "
                    f"{to_text(value)} instead. If that is intended, set it in the inventory."
                )

    def partial_failure(self, failure: CloudflareFailure, left: Sequence[Resource]) -> CloudflareFailure:
        """Return the failure with what was written before it and what was not attempted."""
        names = ", ".join(resource.name for resource in self.changed)
        sentences = [str(failure), f"Written before that: {names}." if names else "Nothing was written."]
        if left:
            names = ", ".join(resource.name for resource in left)
            sentences.append(f"Not attempted: {names}. The next run continues here.")
        return failure.with_message(" ".join(sentences))

    def record_change(self, resource: Resource, value: Any) -> None:
        """Record that a resource has a new value."""
        self.values[resource.name] = value
        self.changed.append(resource)

    def result(self) -> dict[str, Any]:
        """Return the module's result, diff included."""
        result: dict[str, Any] = {"zone_id": self.zone.id, "calls": self.api.calls}
        if not self.values:
            return result
        return result | {
            "changed": bool(self.changed),
            "before": self.state({resource.name: resource.before for resource in self.all()}),
            "after": self.state(self.values),
            "changes": [
                {
                    "resource": resource.name,
                    "difference": resource.difference,
                    "before": resource.before,
                    "after": self.values[resource.name],
                }
                for resource in self.changed
            ],
            "unavailable": self.unavailable,
            **({} if self.affected is None else {"affected_hosts": self.affected}),
            "diff": [
                make_diff(
                    f"zone {self.zone.name}, {resource.name}", resource.before, self.values[resource.name]
                )
                for resource in self.changed
            ],
        }

    def state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values, given by resource name, in the form of the module's arguments."""
        return {
            resource_type.key: resource_type.state(
                {resource.name: values[resource.name] for resource in self.resources[resource_type.key]}
            )
            for resource_type in self.types
        }
