"""What a zone's kinds of things (settings, rules, DNS, Argo) have in common: compared, then written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .client import Call, CloudflareFailure


@dataclass
class Thing:
    """A managed thing: what it is now, what it should be, and how to make it so."""

    name: str
    """As people name it: "setting ssl"."""
    before: Any
    wanted: Any
    write: Callable[[], Any]
    """Makes it so and returns what Cloudflare made of it; raises CloudflareFailure."""
    locked: str = ""
    """Why it can't be had, as a sentence; empty where it can."""
    wrong: str = ""
    """Why nobody can have it, as a sentence: there is no such thing."""
    optional: bool = False
    """A failure to write it is a warning, not an error."""

    @property
    def differs(self) -> bool:
        """Whether it has to be written."""
        return bool(self.before != self.wanted)

    @property
    def how(self) -> str:
        """Return how it differs: "missing", "added" (there is more than should be) or "changed"."""
        if self.before in (None, []):
            return "missing"
        if self.wanted in (None, []):
            return "added"
        if isinstance(self.before, list) and all(item in self.before for item in self.wanted):
            return "added"
        return "changed"


class Kind(Protocol):
    """One kind of things of a zone. All methods raise CloudflareFailure."""

    key: str
    """Its name in the module's arguments and results."""
    warnings: list[str]

    def read(self) -> list[Thing]:
        """Return its things in the order of writing."""

    def trials(self) -> list[Call]:
        """Return calls that write nothing, but are refused to a token that may not write."""

    def state(self, values: dict[str, Any]) -> Any:
        """Return it in the form of the module's argument, from each thing's value by the thing's name."""


class NotToBeHad(CloudflareFailure):
    """The zone's plan, or Cloudflare itself, does not let the zone have it."""


def one_line(value: Any) -> str:
    """Return a value as people write it: text bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def as_diff(header: str, before: Any, after: Any) -> dict[str, str]:
    """Return the diff of one thing; a mapping has a line for each key, a list for each entry."""

    def text(value: Any) -> str:
        if value is None or value == []:
            return ""
        if isinstance(value, list):
            return "".join(f"{one_line(item)}\n" for item in value)
        if isinstance(value, dict):
            return json.dumps(value, sort_keys=True, indent=2) + "\n"
        return one_line(value) + "\n"

    return {
        "before_header": header,
        "after_header": header,
        "before": text(before),
        "after": text(after),
    }
