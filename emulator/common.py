"""What the parts of the emulated API share: refusals, calls, times, identifiers, and the zone's file."""

from __future__ import annotations

import datetime as dt
import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.certificates import write_private


class ApiError(Exception):
    """An answer of Cloudflare's that says no: HTTP status, error code, message, what explains it, result.

    Without a code where Cloudflare gives none; `pointer` is the JSON pointer to the field that is wrong.
    """

    def __init__(
        self,
        status: int,
        code: int | None,
        message: str,
        chain: Sequence[tuple[int, str]] = (),
        result: Any = None,
        pointer: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.chain = chain
        self.result = result
        self.pointer = pointer

    def envelope(self) -> dict[str, Any]:
        """Return the body of the answer."""
        entry: dict[str, Any] = {"message": self.message}
        if self.code is not None:
            entry["code"] = self.code
        if self.pointer:
            entry["source"] = {"pointer": self.pointer}
        if self.chain:
            entry["error_chain"] = [{"code": code, "message": text} for code, text in self.chain]
        return {"result": self.result, "success": False, "errors": [entry], "messages": []}


@dataclass(frozen=True)
class Call:
    """One request to a route: what its path holds, its query, and its body, read from JSON."""

    found: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def fields(self) -> dict[str, Any]:
        """The body where it is an object, else an empty one."""
        return dict(self.body) if isinstance(self.body, dict) else {}


Handler = Callable[[Call], dict[str, Any]]
"""Answers a call with what its envelope holds; raises ApiError."""


@dataclass(frozen=True)
class Route:
    """One path of the API: its handlers by method, and what a token needs for it.

    `needs` names permissions without their last word: any one of them with Write, or for GET also with Read,
    opens the route. `service` decides how a token is refused.
    """

    path: str
    needs: Callable[[Call], Sequence[str]]
    handlers: Mapping[str, Handler]
    service: str = ""


def needs(*permissions: str) -> Callable[[Call], Sequence[str]]:
    """Return the `needs` of a route that wants one of these permissions, whatever the call."""
    return lambda call: permissions


def now() -> str:
    """Return the time as Cloudflare writes it: ISO 8601, UTC, microseconds, Z."""
    return timestamp(dt.datetime.now(dt.UTC))


def timestamp(time: dt.datetime) -> str:
    """Return a time in UTC as Cloudflare writes it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def identifier() -> str:
    """Return a new identifier as Cloudflare makes them: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def page(call: Call, items: Sequence[dict[str, Any]], per_page: int) -> dict[str, Any]:
    """Return the page of `items` that the query asks for. Raises ApiError 6003."""
    try:
        number = int(call.query.get("page", 1))
        size = int(call.query.get("per_page", per_page))
    except ValueError:
        number = size = 0
    if number < 1 or size < 1:
        raise ApiError(400, 6003, "Invalid request parameters")
    shown = list(items[(number - 1) * size : number * size])
    info = {
        "page": number,
        "per_page": size,
        "count": len(shown),
        "total_count": len(items),
        "total_pages": math.ceil(len(items) / size),
    }
    return {"result": shown, "result_info": info}


class Store:
    """The zone's state: one object in one file, written whole after each change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.on_save: list[Callable[[], None]] = []
        self.data: dict[str, Any] = {}

    def load(self, name: str) -> bool:
        """Read the state of the zone `name`; False when there is no file.

        Raises ValueError when the file holds another zone or no zone.
        """
        if not self._file.exists():
            return False
        try:
            self.data = json.loads(self._file.read_text())
            found = self.data["name"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self._file} holds no zone ({error!r}); remove it to start afresh") from error
        if found != name:
            raise ValueError(
                f"{self._file} holds the zone {found!r}, not {name!r}; give the zone a folder of its own"
            )
        return True

    def save(self) -> None:
        """Write the state, whole or not at all, and tell who listens."""
        self.data["modified_on"] = now()
        # It holds the key of the zone's client certificate.
        write_private(self._file, json.dumps(self.data, indent=1).encode())
        for listener in self.on_save:
            listener()
