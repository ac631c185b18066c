"""The emulated Cloudflare's API in the test's own process, and what the Cloudflare modules' tests share."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.api import PREFIX, Api
from emulator.faults import Edit, Fault
from emulator.zone import Zone, ZoneDefaults
from tests.kit import process

TOKEN = "the-token-that-must-never-be-seen-anywhere-0123456789"
RETRY_AT_ONCE = {"retry-after-ms": "1"}

GUIDE = {"ssl": "full", "websockets": True, "rocket_loader": False}
CACHE = {
    "phase": "http_request_cache_settings",
    "ref": "managed",
    "action": "set_cache_settings",
    "action_parameters": {"cache": False},
    "expression": 'starts_with(http.request.uri.path, "/ws/")',
}
CONFIG = {
    "phase": "http_config_settings",
    "ref": "managed",
    "action": "set_config",
    "action_parameters": {"rocket_loader": False, "polish": "off"},
    "expression": 'starts_with(http.request.uri.path, "/ws/")',
}
SITE_DNS = [
    {
        "name": "www.example.com",
        "records": [{"type": "A", "content": "192.0.2.1"}, {"type": "AAAA", "content": "2001:db8::1"}],
    }
]
ALL_RESOURCES = {"settings": GUIDE, "rules": [CACHE, CONFIG], "dns": SITE_DNS, "argo": False}


@dataclass
class Cloudflare:
    """An emulated API: the zone behind it, the API itself (journal, faults), and its base URL."""

    zone: Zone
    api: Api
    url: str

    def settings_written(self) -> list[tuple[str, Any]]:
        """Return (setting, value) of every write of a setting in the journal, permission checks left out."""
        return [
            (entry["path"].rsplit("/", 1)[1], entry["body"]["value"])
            for entry in self.api.journal
            if entry["method"] != "GET"
            and "/settings/" in entry["path"]
            and "permission_check" not in entry["path"]
        ]

    def writes(self, path: str) -> list[tuple[str, str]]:
        """Return (method, path below the API's prefix) of every write whose path contains `path`."""
        return [
            (entry["method"], entry["path"].removeprefix(PREFIX))
            for entry in self.api.journal
            if entry["method"] != "GET" and path in entry["path"]
        ]

    def methods(self) -> list[str]:
        """Return the method of every request in the journal."""
        return [entry["method"] for entry in self.api.journal]

    def rules(self, phase: str = CACHE["phase"]) -> list[dict[str, Any]] | None:
        """Return the phase's rules as the API shows them; None without a ruleset."""
        rulesets = {ruleset["phase"]: ruleset["rules"] for ruleset in self.zone.rulesets.all}
        return copy.deepcopy(rulesets.get(phase))

    def edit_rules(self, method: str, path: str, body: object = None) -> Any:
        """Write to the zone's rulesets as another client."""
        return self.api.edit(Edit(method, "/zones/{zone}/rulesets" + path, body))["result"]

    def fail(
        self,
        path: str,
        status: int = 400,
        *errors: tuple[int, str],
        body: object = None,
        times: int = 99,
        **more: Any,
    ) -> None:
        """Answer the next requests whose path matches with these (code, message) errors, or with a body."""
        if body is None:
            entries = [{"code": code, "message": message} for code, message in errors]
            body = {"success": False, "errors": entries, "messages": [], "result": None}
        self.api.faults.append(Fault(path=path, status=status, body=body, times=times, **more))

    def succeed(self, path: str, result: object, **more: Any) -> None:
        """Answer the next requests whose path matches with this result."""
        body = {"success": True, "errors": [], "messages": [], "result": result}
        self.fail(path, 200, body=body, **more)


@contextlib.contextmanager
def serve(folder: Path, fresh: ZoneDefaults, networks: Sequence[str] = ()) -> Iterator[Cloudflare]:
    """Serve the API of a fresh zone, with its state in `folder`, until the block ends."""
    zone = Zone(folder / "zone.json", fresh)
    api = Api(zone, TOKEN, *([list(networks)] if networks else []))
    with process.serve(api, http="h11") as port:
        yield Cloudflare(zone, api, f"http://127.0.0.1:{port}{PREFIX}")
