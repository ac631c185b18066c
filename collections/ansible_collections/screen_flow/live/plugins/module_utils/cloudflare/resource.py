"""What a zone's resource types (settings, rules, DNS, Argo) have in common: compared first, then written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .client import Call, CloudflareFailure


@dataclass
class Resource:
    """Part of a zone: its value, the value it should have, and how to write that."""

    name: str
    """Its name in messages and results: "setting ssl"."""
    before: Any
    wanted: Any
    write: Callable[[], Any]
    """Writes the wanted value and returns the one that Cloudflare stored; raises CloudflareFailure."""
    locked: CloudflareFailure | None = None
    """Why this zone can't have the wanted value."""
    invalid: CloudflareFailure | None = None
    """Why it is never written: Cloudflare has no such resource, or it would weaken other hosts."""
    optional: bool = False
    """Whether a failed write is a warning instead of an error."""
    zone_wide: bool = False
    """Whether it affects every host of the zone."""
    last: bool = False
    """Whether it is written after all others."""

    @property
    def differs(self) -> bool:
        """Whether it has to be written."""
        return bool(self.before != self.wanted)

    @property
    def difference(self) -> str:
        """How it differs: "missing", "added" (there is more than wanted) or "changed"."""
        if self.before in (None, []):
            return "missing"
        if self.wanted in (None, []):
            return "added"
        if isinstance(self.before, list) and all(item in self.before for item in self.wanted):
            return "added"
        return "changed"


class ResourceType(Protocol):
    """One type of a zone's resources. All methods raise CloudflareFailure."""

    key: str
    """Its name in the module's arguments and results."""
    warnings: list[str]

    def read(self) -> list[Resource]:
        """Return its resources in the order of writing."""

    def permission_probes(self) -> list[Call]:
        """Return requests that write nothing and are refused to a token without write permission."""

    def state(self, values: dict[str, Any]) -> Any:
        """Return the values, given by resource name, in the form of the module's argument."""


def to_text(value: Any) -> str:
    """Return a value for a message: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def make_diff(header: str, before: Any, after: Any) -> dict[str, str]:
    """Return the diff of one resource; a mapping has a line for each key, a list for each entry."""

    def lines(value: Any) -> str:
        if value is None or value == []:
            return ""
        if isinstance(value, list):
            return "".join(f"{to_text(item)}\n" for item in value)
        if isinstance(value, dict):
            return json.dumps(value, sort_keys=True, indent=2) + "\n"
        return to_text(value) + "\n"

    return {
        "before_header": header,
        "after_header": header,
        "before": lines(before),
        "after": lines(after),
    }
