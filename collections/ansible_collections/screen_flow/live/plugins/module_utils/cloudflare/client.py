"""A client of Cloudflare's API: the SDK's connection, retries and time-outs, and failures with a reason.

docs/decisions/0021 lists which parts of the SDK are used, and why the others are not.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import (
    RETRIES,
    TOKEN_STATUS,
    TOKENS_PAGE,
    Call,
    CloudflareFailure,
    ErrorEntry,
    Reason,
    Refusal,
    Reply,
    classify,
    error_entries,
    failure,
    invalid_input,
    unexpected_response,
)

# The other files import from here what errors.py defines.
__all__ = [
    "API_BASE_URL",
    "SDK_IMPORT_ERROR",
    "TOKENS_PAGE",
    "Call",
    "CloudflareApi",
    "CloudflareFailure",
    "Reason",
    "Refusal",
    "Zone",
    "invalid_input",
]

SDK_IMPORT_ERROR: str | None = None
try:
    import cloudflare
    import httpx
except ImportError:
    SDK_IMPORT_ERROR = traceback.format_exc()

API_BASE_URL = "https://api.cloudflare.com/client/v4"
CONNECT_TIMEOUT_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0

ZONE_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
ZONE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Zone:
    """A zone: its id (32 hexadecimal digits), its name, and its status as Cloudflare names it."""

    id: str
    name: str
    status: str = "active"


def validate_base_url(base_url: str) -> None:
    """Raise CloudflareFailure for an address that is not a URL, or not encrypted."""
    url = urlsplit(base_url)
    if not url.hostname or url.scheme not in ("https", "http"):
        raise invalid_input(f"api_base_url is '{base_url}': use a URL such as {API_BASE_URL}.")
    # http:// is for an emulator on this machine.
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise invalid_input(
            f"api_base_url is '{base_url}', which would send requests unencrypted: use an https:// URL."
        )


def validate_token(token: str) -> None:
    """Raise CloudflareFailure for text that can't be a token."""
    if not token:
        raise invalid_input(
            f"api_token is empty: create a token at {TOKENS_PAGE} and set it, or set CLOUDFLARE_API_TOKEN."
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise invalid_input(
            "api_token holds a space, a line break or another character that no token has: use the token "
            "alone, without quotes and without the word Bearer."
        )


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def account(zone: Mapping[str, Any]) -> str:
    """Return the account of a zone, as the API shows it, by name and id."""
    found = zone.get("account")
    found = found if isinstance(found, dict) else {}
    return f"account {found.get('name', 'without a name')}, {found.get('id', 'without an id')}"


def return_rate_limit(response: httpx.Response) -> None:
    """Stop the SDK from retrying a 429 itself: it would wait silently, and never longer than 60 s."""
    if response.status_code == 429:
        response.headers["x-should-retry"] = "false"


class CloudflareApi:
    """Cloudflare's v4 API, for one token or, with None, for what is public.

    Every method raises CloudflareFailure and nothing else. `timeout` is for one response, in seconds.
    `wait_seconds` bounds what all its calls together wait for the rate limit; `notify` receives a sentence
    before each wait.
    """

    def __init__(
        self,
        token: str | None,
        base_url: str = API_BASE_URL,
        wait_seconds: float = 0,
        notify: Callable[[str], None] = lambda message: None,
        timeout: float | None = None,
    ) -> None:
        validate_base_url(base_url)
        if token is not None:
            validate_token(token)
        self.base_url = base_url
        self.calls = 0
        """Number of requests, retries not counted."""
        self._may_wait = wait_seconds > 0
        self._wait_left = wait_seconds
        self.notify = notify
        self._timeout = timeout or TIMEOUT_SECONDS
        self._client = cloudflare.Cloudflare(
            base_url=base_url,
            max_retries=RETRIES,
            timeout=httpx.Timeout(self._timeout, connect=CONNECT_TIMEOUT_SECONDS),
            http_client=cloudflare.DefaultHttpxClient(
                # A redirect would turn a PATCH into a GET; it means that the address is wrong.
                follow_redirects=False,
                event_hooks={"response": [return_rate_limit]},
            ),
        )
        # The SDK also reads credentials from the environment, and prefers an e-mail address to the token.
        self._client.api_token = token
        self._client.api_email = self._client.api_key = self._client.user_service_key = None
        self._headers = {} if token else {"Authorization": cloudflare.Omit()}
        self._token_is_valid = False

    def call(self, call: Call) -> Any:
        """Return the response's `result`."""
        reply = self._send(call)
        envelope = reply.envelope()
        if envelope is not None and envelope["success"] is True and reply.status < 300:
            self._token_is_valid = True
            return envelope.get("result")
        errors = error_entries(envelope)
        reason = classify(call, reply, errors)
        if reason is Reason.TOKEN_UNVERIFIED:
            reason = self._verify_token()
        raise self._failure(call, reply, errors, reason)

    def graphql(
        self, query: str, variables: Mapping[str, Any], purpose: str, permission: str
    ) -> dict[str, Any]:
        """Return the `data` of a response of the GraphQL API, which has its own envelope."""
        body = {"query": query, "variables": dict(variables)}
        call = Call("post", "/graphql", purpose, permission, body=body)
        reply = self._send(call)
        try:
            content = json.loads(reply.text)
        except ValueError:
            content = None
        data, errors = (content.get(key) if isinstance(content, dict) else None for key in ("data", "errors"))
        if isinstance(data, dict) and not errors and reply.status < 300:
            return data
        if isinstance(content, dict) and errors and reply.envelope() is None:
            messages = "; ".join(str(error.get("message")) for error in errors if isinstance(error, dict))
            raise CloudflareFailure(
                f"Can't {purpose}: Cloudflare's GraphQL API returned: {messages}. If that is about access, "
                f"add the permission {permission} for this zone to the token at {TOKENS_PAGE}.",
                Reason.REJECTED,
                status=reply.status,
            )
        entries = error_entries(reply.envelope())
        raise self._failure(call, reply, entries, classify(call, reply, entries))

    def unexpected(self, purpose: str) -> CloudflareFailure:
        """Return the failure for a `result` whose shape is not Cloudflare's."""
        return unexpected_response(purpose, self.base_url)

    def find_zone(self, name: str) -> Zone:
        """Return the zone of that name."""
        # The name filter takes operators ("contains:"), so anything but a name must not get there.
        if not ZONE_NAME.fullmatch(name):
            raise invalid_input(f"zone is '{name}': use a domain name in lower case, such as example.com.")
        purpose = f"find zone {name}"
        zones = self.call(Call("get", "/zones", purpose, "Zone Read", query={"name": name}))
        if not isinstance(zones, list) or not all(
            isinstance(zone, dict) and zone.get("id") for zone in zones
        ):
            raise self.unexpected(purpose)
        if not zones:
            raise CloudflareFailure(
                f"Zone {name} does not exist at Cloudflare, or this API token can't see it: correct the name "
                "(the domain as added to Cloudflare, not a host in it), or grant the token the permission "
                "Zone Read for the zone.",
                Reason.NOT_FOUND,
            )
        if len(zones) > 1:
            ids = ", ".join(f"{zone['id']} ({account(zone)})" for zone in zones)
            raise CloudflareFailure(
                f"Zone {name} exists in {len(zones)} accounts: set zone_id (site_zone_id in the inventory) "
                f"to one of {ids}.",
                Reason.REJECTED,
            )
        return Zone(str(zones[0]["id"]), name, str(zones[0].get("status", "active")))

    def open_zone(self, name: str, zone_id: str) -> Zone:
        """Return the zone of that name, found by its id where one is given; either can be empty.

        An id without a name costs no request.
        """
        if not zone_id:
            return self.find_zone(name)
        if not ZONE_ID.fullmatch(zone_id):
            raise invalid_input(
                f"zone_id is '{zone_id}': use the 32 hexadecimal digits that the zone's overview page shows."
            )
        if not name:
            return Zone(zone_id, zone_id)
        purpose = f"read zone {zone_id}"
        zone = self.call(Call("get", f"/zones/{zone_id}", purpose, "Zone Read"))
        if not isinstance(zone, dict) or not zone.get("name"):
            raise self.unexpected(purpose)
        if zone["name"] != name:
            raise invalid_input(
                f"zone_id is {zone_id}, which is the zone {zone['name']} ({account(zone)}), but zone is "
                f"{name}: correct one of them (site_zone_id and site_zone in the inventory)."
            )
        return Zone(zone_id, name, str(zone.get("status", "active")))

    def _failure(
        self, call: Call, reply: Reply, errors: list[ErrorEntry], reason: Reason
    ) -> CloudflareFailure:
        found = failure(call, reply, errors, reason, self.base_url)
        if reason is Reason.RATE_LIMITED and self._may_wait:
            return found.with_message(f"{found} A larger wait_seconds would let the task wait for it.")
        return found

    def _verify_token(self) -> Reason:
        """Return what a refusal means: PERMISSION for a valid token, else what is wrong with it."""
        if self._token_is_valid:
            return Reason.PERMISSION
        try:
            reply = self._send(Call("get", "/user/tokens/verify", "verify the API token", ""))
        except CloudflareFailure:
            return Reason.TOKEN_UNVERIFIED
        envelope = reply.envelope()
        if envelope is None:
            return Reason.TOKEN_UNVERIFIED
        result = envelope.get("result")
        if envelope["success"] is True and isinstance(result, dict):
            return TOKEN_STATUS.get(str(result.get("status")), Reason.TOKEN_UNVERIFIED)
        return Reason.TOKEN_UNKNOWN if reply.status in (400, 401, 403) else Reason.TOKEN_UNVERIFIED

    def _send(self, call: Call) -> Reply:
        """Return the response, after waiting for the rate limit as long as `wait_seconds` allows."""
        self.calls += 1
        while True:
            reply = self._send_once(call)
            wait = reply.wait_seconds
            if reply.status != 429 or wait > self._wait_left:
                return reply
            self._wait_left -= wait
            self.notify(
                f"Cloudflare's rate limit is reached: waiting {wait} s to {call.purpose}; "
                f"{self._wait_left:g} s of wait_seconds remain."
            )
            time.sleep(wait)

    def _send_once(self, call: Call) -> Reply:
        options = {"params": dict(call.query), "max_retries": call.retries, "headers": self._headers}
        arguments: dict[str, Any] = {"cast_to": httpx.Response, "options": options}
        if call.body is not None:
            arguments["body"] = call.body
        try:
            response = getattr(self._client, call.method)(call.path, **arguments)
        except cloudflare.APIStatusError as error:
            response = error.response
        except cloudflare.APITimeoutError:
            raise CloudflareFailure(
                f"Can't {call.purpose}: no response from {self.base_url} in {self._timeout:g} s"
                f"{call.attempts}; check www.cloudflarestatus.com and the network, then run again.",
                Reason.UNREACHABLE,
            ) from None
        except cloudflare.APIConnectionError as error:
            raise CloudflareFailure(
                f"Can't {call.purpose}: can't connect to {self.base_url} ({error.__cause__ or error}); check "
                "network, DNS, proxy (HTTPS_PROXY), CA certificates (SSL_CERT_FILE) and api_base_url.",
                Reason.UNREACHABLE,
            ) from None
        headers = response.headers
        return Reply(
            response.status_code,
            response.text,
            headers.get("content-type", ""),
            headers.get("retry-after", ""),
        )
