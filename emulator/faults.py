"""Faults that a test injects into the API's next responses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Edit:
    """A change made as another user: without a token check, and not in the journal."""

    method: str
    path: str
    body: Any = None

    @classmethod
    def read(cls, wanted: object) -> Edit:
        """Parse an edit. Raises ValueError naming the invalid field and its value."""
        if not isinstance(wanted, Mapping) or not {"method", "path"} <= wanted.keys() <= {
            "method",
            "path",
            "body",
        }:
            raise ValueError(f'an edit must be {{"method", "path", "body"}}, not {wanted!r}')
        edit = cls(**wanted)
        if edit.method not in METHODS:
            raise ValueError(f"edit: method {edit.method!r} is not one of {', '.join(METHODS)}")
        if not isinstance(edit.path, str) or not edit.path.startswith("/"):
            raise ValueError(
                f"edit: path {edit.path!r} is not a path below /client/v4 such as /zones/{{zone}}/…"
            )
        return edit


@dataclass
class Fault:
    """A fault for the next `times` requests that match, after `skip` that pass unchanged.

    `path` is a regular expression, searched below /client/v4; an empty `method` matches all. In this order:
    `edits` are made as another user; with `applied` the request still takes effect; `delay` seconds pass;
    the connection is cut, or `status`, `headers` and `body` replace the real response.
    """

    path: str = ""
    method: str = ""
    times: int = 1
    skip: int = 0
    edits: list[Edit] = field(default_factory=list)
    applied: bool = False
    delay: float = 0
    cut: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @classmethod
    def read(cls, wanted: Mapping[str, Any]) -> Fault:
        """Parse a fault. Raises ValueError naming the invalid field and its value."""
        known = cls.__dataclass_fields__
        if unknown := wanted.keys() - known.keys():
            raise ValueError(f"a fault has the fields {', '.join(known)}, not {', '.join(sorted(unknown))}")
        fault = cls(**wanted)
        if fault.status is not None and not (isinstance(fault.status, int) and 200 <= fault.status <= 599):
            raise ValueError(f"fault: status {fault.status!r} is not an HTTP status from 200 to 599")
        if not isinstance(fault.delay, int | float) or fault.delay < 0:
            raise ValueError(f"fault: delay {fault.delay!r} is not a number of seconds")
        for name, count in (("times", fault.times), ("skip", fault.skip)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"fault: {name} {count!r} is not a number of requests")
        for name, flag in (("cut", fault.cut), ("applied", fault.applied)):
            if not isinstance(flag, bool):
                raise ValueError(f"fault: {name} must be true or false, not {flag!r}")
        if fault.applied and not fault.cut and fault.status is None:
            raise ValueError(
                "fault: applied needs cut or a status; without them the request is applied in any case"
            )
        if not isinstance(fault.edits, list):
            raise ValueError(f"fault: edits must be a list, not {fault.edits!r}")
        fault.edits = [Edit.read(edit) for edit in fault.edits]
        try:
            re.compile(fault.path)
        except re.error as error:
            raise ValueError(f"fault: path {fault.path!r} is not a regular expression: {error}") from error
        return fault

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault applies to this request, which counts towards `skip` and `times`."""
        if self.times < 1 or self.method not in ("", method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    def describe(self) -> dict[str, Any]:
        """Return the fault for the control API."""
        return asdict(self)
