"""What the Cloudflare modules share: the client, its arguments, and every failure as a sentence.

The client is the official SDK reduced to its raw verbs. Its typed results mislead (a setting that it does not
know comes back as a foreign class), and it raises nothing for `success: false` or for HTML under HTTP 200.
Error codes: Cloudflare's API reference, and what its API was seen to answer.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

SDK_PROBLEM: str | None = None
try:
    import cloudflare
    import httpx
except ImportError:
    SDK_PROBLEM = traceback.format_exc()

API_BASE_URL = "https://api.cloudflare.com/client/v4"
# What fails by no fault of ours is tried three times; the SDK waits up to 8 s between two tries.
RETRIES = 2
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
# Cloudflare's rate limit blocks for 5 minutes; its documentation says so, not each of its answers.
BLOCK_SECONDS = 300

# The token is malformed or not known. 9109 and 10000 are also said of a valid token without permission.
TOKEN_CODES = {1000, 6111, 9103, 9106, 9109, 10000}
# The zone's id leads nowhere.
ROUTE_CODES = {7000, 7003}
PLAN_CODE = 1015

# What a token's verification says of one that is good.
ACTIVE = "active"
TOKENS_PAGE = "dash.cloudflare.com/profile/api-tokens"
ZONE_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
ZONE_ID = re.compile(r"[0-9a-f]{32}")


class CloudflareFailure(Exception):
    """A call did not succeed; the text is the sentence for the user: what, why, and the remedy.

    `codes` are Cloudflare's own error codes, `status` the answer's; empty and 0 where no answer came.
    `missing` names the permissions that the token, known to be valid, lacks for it. `token_status` is active,
    disabled, expired or refused, where the token was in doubt and Cloudflare told; else empty.
    """

    def __init__(
        self,
        sentence: str,
        codes: frozenset[int] = frozenset(),
        status: int = 0,
        missing: Sequence[str] = (),
        token_status: str = "",
    ) -> None:
        super().__init__(sentence)
        self.codes = codes
        self.status = status
        self.missing = missing
        self.token_status = token_status


@dataclass(frozen=True)
class Call:
    """One request, and what a person needs to be told when it is refused."""

    method: str
    path: str
    what: str
    """The purpose as a verb phrase: "read zone setting ssl"."""
    needs: str
    """The token's permission for it, as Cloudflare names it: "Zone Settings Write"."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    refusals: Mapping[int, str] = field(default_factory=dict)
    """Cloudflare's error code -> cause and remedy, for codes that mean something only here."""
    retries: int = RETRIES
    """How often it is sent again when no answer tells whether it was done; 0 for what must happen once."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, whatever it holds."""

    status: int
    text: str
    content_type: str = ""
    retry_after: str = ""

    def asked_wait(self) -> int:
        """Return for how many seconds Cloudflare asks to wait; its rate limit's whole block where untold."""
        return int(self.retry_after) if self.retry_after.isdecimal() else BLOCK_SECONDS

    def envelope(self) -> dict[str, Any] | None:
        """Return Cloudflare's JSON object {success, errors, messages, result}, or None when it is none."""
        try:
            content = json.loads(self.text)
        except ValueError:
            return None
        return content if isinstance(content, dict) and "success" in content else None


@dataclass(frozen=True)
class Zone:
    """A zone: its id (32 hexadecimal digits), its name, and its state in Cloudflare's words."""

    id: str
    name: str
    status: str = "active"


def api_arguments() -> dict[str, dict[str, Any]]:
    """Return the argument spec that all Cloudflare modules have in common."""
    return {
        "api_token": {
            "type": "str",
            "required": True,
            "no_log": True,
            "fallback": (env_fallback, ["CLOUDFLARE_API_TOKEN"]),
        },
        "api_base_url": {"type": "str", "default": API_BASE_URL},
        "zone": {"type": "str"},
        "zone_id": {"type": "str"},
        "wait_seconds": {"type": "int", "default": 900},
        "progress_file": {"type": "path"},
    }


# How the two arguments for the zone exclude each other: keywords for AnsibleModule.
ZONE_RULES: dict[str, Any] = {
    "required_one_of": [("zone", "zone_id")],
    "mutually_exclusive": [("zone", "zone_id")],
}


def check_access(token: str, base_url: str) -> None:
    """Raise CloudflareFailure for a token or address that must not be sent or can't work."""
    # http:// would show the token to everybody on the way, except on this machine (an emulator).
    url = urlsplit(base_url)
    if not url.hostname or url.scheme not in ("https", "http"):
        raise CloudflareFailure(f"api_base_url is '{base_url}': give a URL such as {API_BASE_URL}.")
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise CloudflareFailure(
            f"api_base_url is '{base_url}', which would send the API token unencrypted: give an https:// URL."
        )
    if not token:
        raise CloudflareFailure(
            f"api_token is empty: make a token at {TOKENS_PAGE} and give it, or set CLOUDFLARE_API_TOKEN."
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise CloudflareFailure(
            "api_token holds a space, a line break or another character that no token has: give the token "
            "alone, without quotes and without the word Bearer."
        )


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def keep_rate_limit(response: httpx.Response) -> None:
    """Let the SDK hand on a 429 at once: it would wait unseen, and never longer than 60 s."""
    if response.status_code == 429:
        response.headers["x-should-retry"] = "false"


class CloudflareApi:
    """Cloudflare's v4 API for one token. Every method raises CloudflareFailure and nothing else.

    `wait_seconds` bounds what all its calls together wait for the rate limit; `tell` is given a sentence
    before each wait.
    """

    def __init__(
        self,
        token: str,
        base_url: str = API_BASE_URL,
        wait_seconds: float = 0,
        tell: Callable[[str], None] = lambda sentence: None,
        answer_seconds: float | None = None,
    ) -> None:
        check_access(token, base_url)
        self.base_url = base_url
        self.calls = 0
        """How many requests were sent, those again not counted."""
        self._patience = wait_seconds
        self._tell = tell
        self._answer_seconds = answer_seconds or ANSWER_SECONDS
        self._client = cloudflare.Cloudflare(
            api_token=token,
            base_url=base_url,
            max_retries=RETRIES,
            timeout=httpx.Timeout(self._answer_seconds, connect=CONNECT_SECONDS),
            http_client=cloudflare.DefaultHttpxClient(
                # A redirect would turn a PATCH into a GET; it says that the address is wrong.
                follow_redirects=False,
                event_hooks={"response": [keep_rate_limit]},
            ),
        )
        # The SDK also reads these from the environment and then drops the token without a word.
        self._client.api_email = self._client.api_key = self._client.user_service_key = None
        self._token_is_good = False

    def call(self, call: Call) -> Any:
        """Return the answer's `result`."""
        reply = self._send(call)
        envelope = reply.envelope()
        if envelope is not None and envelope["success"] is True and reply.status < 300:
            self._token_is_good = True
            return envelope.get("result")
        errors = error_list(envelope)
        codes = frozenset(code for code, _ in errors)
        # Only then does Cloudflare's answer leave open whether the token is bad or merely lacks a permission.
        token_status = self._token_status() if doubts_token(call, reply, codes) else ""
        raise CloudflareFailure(
            explain(call, reply, errors, token_status, self.base_url),
            codes,
            reply.status,
            [call.needs] if token_status == ACTIVE else (),
            token_status,
        )

    def graphql(self, query: str, variables: Mapping[str, Any], what: str, needs: str) -> dict[str, Any]:
        """Return the `data` of an answer of the GraphQL API, which has an envelope of its own."""
        call = Call("post", "/graphql", what, needs, body={"query": query, "variables": dict(variables)})
        reply = self._send(call)
        try:
            content = json.loads(reply.text)
        except ValueError:
            content = None
        data, errors = (content.get(key) if isinstance(content, dict) else None for key in ("data", "errors"))
        if isinstance(data, dict) and not errors and reply.status < 300:
            return data
        if isinstance(content, dict) and errors and reply.envelope() is None:
            said = "; ".join(str(error.get("message")) for error in errors if isinstance(error, dict))
            raise CloudflareFailure(
                f"Can't {what}: Cloudflare's GraphQL API says: {said}. If that is about access, add the "
                f"permission {needs} for this zone to the token at {TOKENS_PAGE}."
            )
        raise CloudflareFailure(explain(call, reply, error_list(reply.envelope()), "", self.base_url))

    def find_zone(self, name: str) -> Zone:
        """Return the zone of that name."""
        # The name filter takes operators ("contains:"), so anything but a name must not get there.
        if not ZONE_NAME.fullmatch(name):
            raise CloudflareFailure(
                f"zone is '{name}': give a domain name in lower case, such as example.com."
            )
        what = f"find zone {name}"
        zones = self.call(Call("get", "/zones", what, "Zone Read", query={"name": name}))
        if not isinstance(zones, list) or not all(
            isinstance(zone, dict) and zone.get("id") for zone in zones
        ):
            raise CloudflareFailure(unusable(what, self.base_url))
        if not zones:
            raise CloudflareFailure(
                f"Zone {name} is unknown to Cloudflare or hidden from this API token: correct the name (it "
                "is the domain as added to Cloudflare, not a host in it), or let the token include the zone "
                "with the permission Zone Read."
            )
        if len(zones) > 1:
            ids = ", ".join(str(zone["id"]) for zone in zones)
            raise CloudflareFailure(
                f"Zone {name} exists in {len(zones)} accounts: give zone_id, one of {ids}."
            )
        return Zone(str(zones[0]["id"]), name, str(zones[0].get("status", "active")))

    def _token_status(self) -> str:
        """Return active, disabled or expired; 'refused' for a token that is not known; '' when untold."""
        if self._token_is_good:
            return ACTIVE
        try:
            reply = self._send(Call("get", "/user/tokens/verify", "verify the API token", ""))
        except CloudflareFailure:
            # The call that brought us here has its own sentence; without a verdict it names both causes.
            return ""
        envelope = reply.envelope()
        if envelope is None:
            return ""
        result = envelope.get("result")
        if envelope["success"] is True and isinstance(result, dict):
            return str(result.get("status", ""))
        return "refused" if reply.status in (400, 401, 403) else ""

    def _send(self, call: Call) -> Reply:
        """Return the answer, after the waits for the rate limit that it took."""
        self.calls += 1
        while True:
            reply = self._send_once(call)
            wait = reply.asked_wait()
            if reply.status != 429 or wait > self._patience:
                return reply
            self._patience -= wait
            self._tell(
                f"Cloudflare's rate limit is reached: waiting {wait} s, as it asks, to {call.what}; then "
                f"{self._patience:g} s of patience are left."
            )
            time.sleep(wait)

    def _send_once(self, call: Call) -> Reply:
        options = {"params": dict(call.query), "max_retries": call.retries}
        arguments: dict[str, Any] = {"cast_to": httpx.Response, "options": options}
        if call.body is not None:
            arguments["body"] = call.body
        try:
            response = getattr(self._client, call.method)(call.path, **arguments)
        except cloudflare.APIStatusError as error:
            response = error.response
        except cloudflare.APITimeoutError:
            often = f", {call.retries + 1} times over" if call.retries else ""
            raise CloudflareFailure(
                f"Can't {call.what}: {self.base_url} gave no answer in {self._answer_seconds:g} s{often}; "
                "look at www.cloudflarestatus.com and at the network, then run again."
            ) from None
        except cloudflare.APIConnectionError as error:
            raise CloudflareFailure(
                f"Can't {call.what}: {self.base_url} can't be reached ({error.__cause__ or error}); check "
                "network, DNS, proxy (HTTPS_PROXY), authorities (SSL_CERT_FILE) and api_base_url."
            ) from None
        headers = response.headers
        return Reply(
            response.status_code,
            response.text,
            headers.get("content-type", ""),
            headers.get("retry-after", ""),
        )


def error_list(envelope: Mapping[str, Any] | None) -> list[tuple[int, str]]:
    """Return the envelope's errors as (code, message), each followed by the ones that explain it."""
    found: list[tuple[int, str]] = []

    def collect(errors: object) -> None:
        for error in errors if isinstance(errors, list) else []:
            if isinstance(error, dict):
                code = error.get("code")
                found.append((code if isinstance(code, int) else 0, str(error.get("message", ""))))
                collect(error.get("error_chain"))

    collect((envelope or {}).get("errors"))
    return found


def doubts_token(call: Call, reply: Reply, codes: frozenset[int]) -> bool:
    """Tell whether a refusal is about the token; False for plan limits, which also come as HTTP 401."""
    if reply.envelope() is None or reply.status == 429 or codes & ({PLAN_CODE} | call.refusals.keys()):
        return False
    return reply.status in (401, 403) or bool(codes & TOKEN_CODES)


def explain(
    call: Call,
    reply: Reply,
    errors: list[tuple[int, str]],
    token_status: str = "",
    base_url: str = API_BASE_URL,
) -> str:
    """Return the sentence for an answer that is no success: what was tried, the cause, the remedy.

    `token_status` counts when doubts_token() says so: active, disabled, expired, refused, or '' when untold.
    """
    codes = frozenset(code for code, _ in errors)
    said = "; ".join(f"{message} (code {code})" if code else message for code, message in errors)
    quoted = f" Cloudflare says: {said}." if said else ""
    start = f"Can't {call.what}: "
    if reply.status == 429:
        return (
            start + "Cloudflare's rate limit is reached (1200 requests in 5 minutes), and it asks for more "
            f"waiting than wait_seconds has left; run again in {reply.asked_wait()} s, or raise wait_seconds."
            + quoted
        )
    if reply.envelope() is None:
        if reply.status >= 500:
            return start + trouble(call, reply)
        return unusable(call.what, base_url, reply)
    for code in codes & call.refusals.keys():
        return start + call.refusals[code] + quoted
    if PLAN_CODE in codes:
        return start + f"the zone's plan does not include it; leave it out or change the plan.{quoted}"
    if doubts_token(call, reply, codes):
        return start + token_cause(call.needs, token_status) + quoted
    if reply.status == 404 or codes & ROUTE_CODES:
        return start + f"Cloudflare knows nothing at {call.path}; correct zone_id or the name in it.{quoted}"
    if reply.status >= 500:
        return start + trouble(call, reply) + quoted
    return (
        start + f"Cloudflare refuses it (HTTP {reply.status}); correct what it names and run again.{quoted}"
    )


def token_cause(needs: str, status: str) -> str:
    """Return cause and remedy for a refusal that is about the token, as far as its status is known."""
    permit = f"add the permission {needs} for this zone to the token at {TOKENS_PAGE}"
    renew = f"make a new one at {TOKENS_PAGE} and give it as api_token"
    match status:
        case "active":  # ACTIVE, which a pattern would take for a name
            return f"the API token is valid but lacks a permission; {permit}."
        case "expired" | "disabled":
            return f"the API token is {status}; {renew}."
        case "refused":
            # A token that an account owns is unknown to this check as well.
            return (
                f"Cloudflare does not know the API token, which may be mistyped or deleted; {renew}. If an "
                f"account owns the token and it is right, it lacks the permission {needs}."
            )
    return f"the API token is wrong or lacks a permission; {permit}, or {renew}."


def trouble(call: Call, reply: Reply) -> str:
    """Return cause and remedy for HTTP 5xx, after the retries."""
    often = f", {call.retries + 1} times over" if call.retries else ""
    return (
        f"Cloudflare's API is in trouble (HTTP {reply.status}{often}); look at www.cloudflarestatus.com and "
        "run again later."
    )


def unusable(what: str, base_url: str, reply: Reply | None = None) -> str:
    """Return the sentence for an answer that is not Cloudflare's: HTML, a redirect, a foreign JSON shape."""
    seen = ""
    if reply:
        title = re.search(r"<title[^>]*>([^<]{1,80})", reply.text, re.IGNORECASE)
        kind = reply.content_type.partition(";")[0] or "no content type"
        seen = f" (HTTP {reply.status}, {kind}" + (f", titled '{title[1].strip()}'" if title else "") + ")"
    return (
        f"Can't {what}: {base_url} answers, but not as Cloudflare's API does{seen}; correct api_base_url, or "
        "look for a proxy or sign-in page in between."
    )


def require_sdk(module: AnsibleModule) -> None:
    """Fail the module with the remedy when the SDK is not installed where it runs."""
    if SDK_PROBLEM:
        module.fail_json(msg=missing_required_lib("cloudflare"), exception=SDK_PROBLEM)


def open_api(module: AnsibleModule) -> CloudflareApi:
    """Return the client for the common arguments; raises CloudflareFailure."""
    progress = module.params["progress_file"]

    def tell(sentence: str) -> None:
        module.warn(sentence)
        if progress:
            with Path(progress).open("a") as lines:
                lines.write(sentence + "\n")

    given = module.params
    return CloudflareApi(given["api_token"], given["api_base_url"], given["wait_seconds"], tell)


def open_zone(module: AnsibleModule) -> tuple[CloudflareApi, Zone]:
    """Return client and zone for the common arguments; raises CloudflareFailure."""
    api = open_api(module)
    return api, zone_of(module, api)


def zone_of(module: AnsibleModule, api: CloudflareApi) -> Zone:
    """Return the zone for the common arguments; raises CloudflareFailure."""
    zone_id = module.params["zone_id"]
    if zone_id is None:
        return api.find_zone(module.params["zone"])
    if not ZONE_ID.fullmatch(zone_id):
        raise CloudflareFailure(
            f"zone_id is '{zone_id}': give the 32 hexadecimal digits of the zone's overview page."
        )
    return Zone(zone_id, zone_id)
