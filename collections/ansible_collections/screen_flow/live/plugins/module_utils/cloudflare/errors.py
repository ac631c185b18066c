"""Why a request to Cloudflare's API failed: a reason to decide on, and a sentence for the user.

Callers decide on `CloudflareFailure.reason`, `codes` and `status`, never on the sentence. Error codes:
Cloudflare's API reference, and responses quoted in public issue trackers.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TOKENS_PAGE = "dash.cloudflare.com/profile/api-tokens"
# A request that fails for a transient reason is sent three times; the SDK waits up to 8 s in between.
RETRIES = 2
# Cloudflare's rate limit blocks for 5 minutes, by its documentation; not every response gives the time.
RATE_LIMIT_SECONDS = 300

# The token is malformed or unknown. 9109 and 10000 also come for a valid token that lacks the permission.
TOKEN_CODES = {1000, 6111, 9103, 9106, 9109, 10000}
# The path leads nowhere, usually because of the zone's id.
ROUTE_CODES = {7000, 7003}
NOT_ENTITLED_CODE = 1015
# The Rulesets API reports what the plan does not include by a message alone, such as "not entitled to use the
# HostHeader override" and "not entitled to use a mitigation timeout different from 10" (quoted in public
# repositories, read on 2026-11-28). This is the one place where a message decides.
NOT_ENTITLED_MESSAGE = re.compile("entitle", re.IGNORECASE)


class Reason(enum.StrEnum):
    """Why a request failed."""

    INPUT = "input"
    """An argument is not valid; nothing was sent."""
    UNREACHABLE = "unreachable"
    """No connection, or no response in time."""
    RATE_LIMITED = "rate_limited"
    """HTTP 429, and the wait would be longer than is left."""
    SERVER_ERROR = "server_error"
    """HTTP 5xx after the retries."""
    UNEXPECTED_RESPONSE = "unexpected_response"
    """Not Cloudflare's format: HTML, a redirect, foreign JSON."""
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 # a reason, not a secret; so are the next three
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    TOKEN_DISABLED = "token_disabled"  # noqa: S105
    TOKEN_UNVERIFIED = "token_unverified"  # noqa: S105
    """The token is wrong or lacks a permission; the responses do not show which."""
    PERMISSION = "permission"
    """The token is valid and lacks the permission."""
    NOT_ENTITLED = "not_entitled"
    """The zone's plan does not include it."""
    LOCKED = "locked"
    """Not modifiable for this zone: by its plan, or because Cloudflare manages it."""
    NOT_FOUND = "not_found"
    """The zone, the object or the path does not exist."""
    CONFLICT = "conflict"
    """Another client changed it at the same time."""
    REJECTED = "rejected"
    """Any other refusal, such as a value that is not valid."""


# A token's status in /user/tokens/verify -> the reason for a refusal.
TOKEN_STATUS = {
    "active": Reason.PERMISSION,
    "expired": Reason.TOKEN_EXPIRED,
    "disabled": Reason.TOKEN_DISABLED,
}


class Refusal(NamedTuple):
    """What one of Cloudflare's error codes means for one kind of request: reason, and cause with remedy."""

    reason: Reason
    text: str


class CloudflareFailure(Exception):
    """A request failed; the text is the sentence for the user: what was attempted, the cause, the remedy.

    `codes` are Cloudflare's error codes and `status` the HTTP status, empty and 0 without a response.
    `permissions` names the permissions that the token, known to be valid, lacks.
    """

    def __init__(
        self,
        message: str,
        reason: Reason,
        codes: frozenset[int] = frozenset(),
        status: int = 0,
        permissions: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.codes = codes
        self.status = status
        self.permissions = permissions

    def with_message(self, message: str) -> CloudflareFailure:
        """Return the same failure with another sentence."""
        return CloudflareFailure(message, self.reason, self.codes, self.status, self.permissions)


def invalid_input(message: str) -> CloudflareFailure:
    """Return the failure for an argument that is refused before any request."""
    return CloudflareFailure(message, Reason.INPUT)


@dataclass(frozen=True)
class Call:
    """One request, and what its error message needs."""

    method: str
    path: str
    purpose: str
    """A verb phrase: "read zone setting ssl"."""
    permission: str
    """The token's permission for it, as Cloudflare names it: "Zone Settings Write"."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    refusals: Mapping[int, Refusal] = field(default_factory=dict)
    """Cloudflare's error codes that have a specific meaning for this request."""
    retries: int = RETRIES
    """Retries after a failure that leaves open whether it was done; 0 for what must be sent only once."""

    @property
    def attempts(self) -> str:
        """How often it was sent, as a clause for a message; empty for once."""
        return f", {self.retries + 1} attempts" if self.retries else ""


@dataclass(frozen=True)
class Reply:
    """An HTTP response, not necessarily Cloudflare's."""

    status: int
    text: str
    content_type: str = ""
    retry_after: str = ""

    @property
    def wait_seconds(self) -> int:
        """Seconds that Cloudflare requires before the next request; the whole block where not given."""
        return int(self.retry_after) if self.retry_after.isdecimal() else RATE_LIMIT_SECONDS

    def envelope(self) -> dict[str, Any] | None:
        """Return Cloudflare's JSON object {success, errors, messages, result}; None for anything else."""
        try:
            content = json.loads(self.text)
        except ValueError:
            return None
        return content if isinstance(content, dict) and "success" in content else None


class ErrorEntry(NamedTuple):
    """One entry of a response's `errors`; code 0 where it has none."""

    code: int
    message: str


def error_entries(envelope: Mapping[str, Any] | None) -> list[ErrorEntry]:
    """Return the envelope's errors, each followed by those of its `error_chain`."""
    found: list[ErrorEntry] = []

    def collect(errors: object) -> None:
        for error in errors if isinstance(errors, list) else []:
            if isinstance(error, dict):
                code = error.get("code")
                found.append(ErrorEntry(code if isinstance(code, int) else 0, str(error.get("message", ""))))
                collect(error.get("error_chain"))

    collect((envelope or {}).get("errors"))
    return found


def classify(call: Call, reply: Reply, errors: Sequence[ErrorEntry]) -> Reason:
    """Return the reason for a response that reports no success.

    TOKEN_UNVERIFIED means that the token has to be verified: it is bad, or lacks a permission.
    """
    codes = {error.code for error in errors}
    if reply.status == 429:
        return Reason.RATE_LIMITED
    if reply.envelope() is None:
        return Reason.SERVER_ERROR if reply.status >= 500 else Reason.UNEXPECTED_RESPONSE
    if known := codes & call.refusals.keys():
        return call.refusals[min(known)].reason
    # Before the token: a plan's limit also comes as HTTP 401.
    if NOT_ENTITLED_CODE in codes or any(NOT_ENTITLED_MESSAGE.search(error.message) for error in errors):
        return Reason.NOT_ENTITLED
    if reply.status in (401, 403) or codes & TOKEN_CODES:
        return Reason.TOKEN_UNVERIFIED
    if reply.status == 404 or codes & ROUTE_CODES:
        return Reason.NOT_FOUND
    return Reason.SERVER_ERROR if reply.status >= 500 else Reason.REJECTED


def failure(
    call: Call, reply: Reply, errors: Sequence[ErrorEntry], reason: Reason, base_url: str
) -> CloudflareFailure:
    """Return the failure for a response that reports no success."""
    if reason is Reason.UNEXPECTED_RESPONSE:
        return unexpected_response(call.purpose, base_url, reply)
    codes = frozenset(error.code for error in errors)
    text = f"Can't {call.purpose}: {cause(call, reply, codes, reason)}"
    if errors:
        details = (
            f"{error.message} (code {error.code})" if error.code else error.message for error in errors
        )
        text += f" Cloudflare's message: {'; '.join(details)}."
    permissions = [call.permission] if reason is Reason.PERMISSION else []
    return CloudflareFailure(text, reason, codes, reply.status, permissions)


def cause(call: Call, reply: Reply, codes: frozenset[int], reason: Reason) -> str:
    """Return cause and remedy."""
    if known := codes & call.refusals.keys():
        return call.refusals[min(known)].text
    add_permission = f"add the permission {call.permission} for this zone to the token at {TOKENS_PAGE}"
    new_token = f"create a token at {TOKENS_PAGE} and set it as api_token"
    match reason:
        case Reason.RATE_LIMITED:
            return (
                "Cloudflare's rate limit (1200 requests in 5 minutes) is reached; run again in "
                f"{reply.wait_seconds} s."
            )
        case Reason.SERVER_ERROR:
            return (
                f"Cloudflare's API returned HTTP {reply.status}{call.attempts}; check "
                "www.cloudflarestatus.com and run again later."
            )
        case Reason.NOT_ENTITLED:
            return "the zone's plan does not include it; leave it out or change the plan."
        case Reason.PERMISSION:
            return f"the API token is valid but lacks a permission; {add_permission}."
        case Reason.TOKEN_EXPIRED:
            return f"the API token is expired; {new_token}."
        case Reason.TOKEN_DISABLED:
            return f"the API token is disabled; {new_token}."
        case Reason.TOKEN_UNKNOWN:
            # A token that an account owns can't be verified at this address either.
            return (
                f"Cloudflare does not recognize the API token: it is mistyped or deleted; {new_token}. If "
                f"an account owns the token and it is correct, it lacks the permission {call.permission}."
            )
        case Reason.TOKEN_UNVERIFIED:
            return f"the API token is wrong or lacks a permission; {add_permission}, or {new_token}."
        case Reason.NOT_FOUND:
            return f"Cloudflare has nothing at {call.path}; correct zone_id or the name in the path."
    return f"Cloudflare rejected it (HTTP {reply.status}); correct what its message names and run again."


def unexpected_response(purpose: str, base_url: str, reply: Reply | None = None) -> CloudflareFailure:
    """Return the failure for a response that is not Cloudflare's: HTML, a redirect, a foreign JSON shape."""
    details = ""
    if reply:
        title = re.search(r"<title[^>]*>([^<]{1,80})", reply.text, re.IGNORECASE)
        media_type = reply.content_type.partition(";")[0] or "no content type"
        details = f" (HTTP {reply.status}, {media_type}"
        details += f", title '{title[1].strip()}')" if title else ")"
    return CloudflareFailure(
        f"Can't {purpose}: the response from {base_url} is not one of Cloudflare's API{details}; correct "
        "api_base_url, or look for a proxy or a sign-in page in between.",
        Reason.UNEXPECTED_RESPONSE,
        status=reply.status if reply else 0,
    )
