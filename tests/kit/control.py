"""The control API of a running emulator: the zone's state, the journal of requests, and faults."""

from typing import Any

import httpx


class EmulatorControl:
    """Calls it at `url`, as in http://127.0.0.1:8480. Raises httpx.HTTPStatusError for a refusal."""

    def __init__(self, url: str) -> None:
        self.api = f"{url}/client/v4"
        self._http = httpx.Client(base_url=f"{url}/_emulator", timeout=30, trust_env=False)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Return the content of the response, None where it is empty."""
        response = self._http.request(method, path, json=body).raise_for_status()
        return response.json() if response.content else None

    def state(self) -> Any:
        """Return the zone: settings, records, rulesets, certificates."""
        return self("GET", "state")

    def ssl_mode(self) -> str:
        return str(self.state()["settings"]["ssl"]["value"])

    def journal(self) -> list[Any]:
        """Return the API requests since the journal was cleared, the oldest first."""
        return list(self("GET", "journal"))

    def writes(self) -> list[tuple[str, str]]:
        """Return method and path below /client/v4 of the requests that may have changed something."""
        return [
            (entry["method"], entry["path"].removeprefix("/client/v4"))
            for entry in self.journal()
            if entry["method"] != "GET"
        ]
