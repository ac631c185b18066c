"""The API token: its status, its permissions, and how each of Cloudflare's services rejects it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.common import ApiError, identifier

TOKEN = re.compile(r"[A-Za-z0-9_-]{40,}")
STATUSES = ("active", "disabled", "expired")
# Permissions of a token for the whole site. Each also exists with Read, which allows only GET.
PERMISSIONS = (
    "Zone Read",
    "Zone Settings Write",
    "SSL and Certificates Write",
    "DNS Write",
    "Cache Rules Write",
    "Config Rules Write",
    "Response Compression Write",
    "Analytics Read",
)
KNOWN = {
    *PERMISSIONS,
    *(name.replace(" Write", " Read") for name in PERMISSIONS),
    "Zone Write",
    "API Tokens Read",
}
# Services that use code 10000 where others use 9109, for an unknown token and for a missing permission.
USES_10000 = {"dns", "rulesets", "ssl", "argo", "graphql"}


class Token:
    """The token that the emulator accepts, with its status and permissions."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.id = identifier()
        self.status = "active"
        self.permissions: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Activate the token, with every permission that the site needs."""
        self.status = "active"
        self.permissions = list(PERMISSIONS)

    def put(self, wanted: Mapping[str, Any]) -> None:
        """Set {"status", "permissions"}, either or both. Raises ValueError, without a change."""
        if not wanted or wanted.keys() - {"status", "permissions"}:
            raise ValueError(f'the body must be {{"status": …, "permissions": […]}}, not {dict(wanted)!r}')
        status = wanted.get("status", self.status)
        permissions = wanted.get("permissions", self.permissions)
        if status not in STATUSES:
            raise ValueError(f"token status {status!r} is not one of {', '.join(STATUSES)}")
        if not isinstance(permissions, list) or not all(isinstance(name, str) for name in permissions):
            raise ValueError(f"token permissions must be a list of names, not {permissions!r}")
        if unknown := sorted(set(permissions) - KNOWN):
            raise ValueError(f"token permission {unknown[0]!r} is unknown; known: {', '.join(sorted(KNOWN))}")
        self.status, self.permissions = status, list(permissions)

    def redact(self, text: str) -> str:
        """Return the text with the token replaced."""
        return text.replace(self._secret, "[token]")

    def check(self, headers: Mapping[str, str], service: str) -> None:
        """Check a request's token. Raises ApiError with the code and text of the service behind the route."""
        if "authorization" not in headers:
            if "x-auth-key" in headers or "x-auth-email" in headers:
                chain = [(6103, "Invalid format for X-Auth-Key header")]
                raise ApiError(400, 6003, "Invalid request headers", chain)
            if service == "verify":
                raise ApiError(400, 1001, 'Missing "Authorization" header')
            raise ApiError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
        scheme, _, token = headers["authorization"].partition(" ")
        if scheme.lower() != "bearer" or not TOKEN.fullmatch(token):
            chain = [(6111, "Invalid format for Authorization header")]
            raise ApiError(400, 6003, "Invalid request headers", chain)
        known = hmac.compare_digest(token, self._secret)
        if known and (service == "verify" or self.status == "active"):
            return
        if service == "verify":
            raise ApiError(401, 1000, "Invalid API Token")
        if service in USES_10000:
            raise ApiError(401, 10000, "Authentication error")
        raise ApiError(403, 9109, "Invalid access token")

    def permit(self, method: str, wanted: Sequence[str], service: str) -> None:
        """Check the token's permissions, before the body is parsed. Raises ApiError as the service does."""
        if not wanted or self.may(method, wanted):
            return
        rules = {name for name in self.permissions if "Rules" in name or "Compression" in name}
        if service == "rulesets" and rules:
            # The token may use other phases: the rules engine itself rejects it, without a code.
            raise ApiError(403, None, "request is not authorized")
        if service in USES_10000:
            raise ApiError(403, 10000, "Authentication error")
        raise ApiError(403, 9109, "Unauthorized to access requested resource")

    def may(self, method: str, wanted: Sequence[str]) -> bool:
        """Whether the token has one of the permissions: with Write, or for a GET with Read."""
        sufficient = {f"{name} Write" for name in wanted}
        if method == "GET":
            sufficient |= {f"{name} Read" for name in wanted}
        return bool(sufficient & set(self.permissions))

    def describe(self) -> dict[str, Any]:
        """Return status and permissions for the control API."""
        return {"status": self.status, "permissions": list(self.permissions)}
