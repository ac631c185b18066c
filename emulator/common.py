"""Shared parts of the emulated API: errors, calls, routes, times, identifiers and the zone's state file."""

from __future__ import annotations

import datetime as dt
import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.certificates import write_private


class ApiError(Exception):
    """An error response of Cloudflare's API: HTTP status, error code, message, error chain and result.

    `code` is None where Cloudflare gives none; `pointer` is the JSON pointer to the invalid field.
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
        """Return the response body."""
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
    """One request to a route: the parameters in its path, its query, and its parsed JSON body."""

    path_parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def fields(self) -> dict[str, Any]:
        """A copy of the body if it is an object, else an empty dictionary."""
        return dict(self.body) if isinstance(self.body, dict) else {}


Handler = Callable[[Call], dict[str, Any]]
"""Returns the fields of the response envelope, such as `result`; raises ApiError."""


@dataclass(frozen=True)
class Route:
    """One path of the API (a regular expression): its handlers by method, and the permissions it needs.

    `needs` returns permission names without their last word: the token needs one of them with Write, or for
    GET with Read. `service` is the Cloudflare service behind the route: it decides how a token is rejected.
    """

    path: str
    needs: Callable[[Call], Sequence[str]]
    handlers: Mapping[str, Handler]
    service: str = ""


def needs(*permissions: str) -> Callable[[Call], Sequence[str]]:
    """Return the `needs` of a route that requires one of these permissions, whatever the call."""
    return lambda call: permissions


def now() -> str:
    """Return the current time as Cloudflare writes it: ISO 8601, UTC, microseconds, Z."""
    return timestamp(dt.datetime.now(dt.UTC))


def timestamp(time: dt.datetime) -> str:
    """Return a time in UTC as Cloudflare writes it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def identifier() -> str:
    """Return a new identifier in Cloudflare's form: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def page(call: Call, items: Sequence[dict[str, Any]], per_page: int) -> dict[str, Any]:
    """Return the page of `items` that the query selects by page and per_page. Raises ApiError 6003."""
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


def find(items: Iterable[dict[str, Any]], wanted: object, missing: ApiError) -> dict[str, Any]:
    """Return the item with the identifier `wanted`. Raises `missing` when there is none."""
    for item in items:
        if item["id"] == wanted:
            return item
    raise missing


class Store:
    """The zone's state: one JSON object in one file, replaced atomically after each change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.on_save: list[Callable[[], None]] = []
        self.data: dict[str, Any] = {}

    def load(self, name: str) -> bool:
        """Read the state of the zone `name`; returns False when there is no file.

        Raises ValueError when the file holds another zone or is not a zone's state.
        """
        if not self._file.exists():
            return False
        try:
            self.data = json.loads(self._file.read_text())
            found = self.data["name"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self._file} is not a zone's state ({error!r}): remove it to start with a new zone"
            ) from error
        if found != name:
            raise ValueError(
                f"{self._file} holds the zone {found!r}, not {name!r}: use a separate folder for each zone"
            )
        return True

    def save(self) -> None:
        """Write the state atomically and call the listeners. Raises OSError."""
        self.data["modified_on"] = now()
        # It contains the key of the zone's client certificate.
        write_private(self._file, json.dumps(self.data, indent=1).encode())
        for listener in self.on_save:
            listener()


class StoredList:
    """A list of objects in the zone's state, such as its DNS records."""

    key: str  # of the list in the state

    def __init__(self, store: Store) -> None:
        self._store = store

    def clear(self) -> None:
        """Empty the list, as in a new zone. The caller saves the state."""
        self._store.data[self.key] = []

    @property
    def all(self) -> list[dict[str, Any]]:
        """Every object of the list, as it is stored; changes to the list itself are not."""
        return list(self._store.data[self.key])
