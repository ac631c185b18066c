"""The one API token: its standing, its permissions, and how each of Cloudflare's services refuses it."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.common import ApiError, identifier

TOKEN = re.compile(r"[A-Za-z0-9_-]{40,}")
STANDINGS = ("active", "disabled", "expired")
# What a token for the whole site has. Each also comes as Read, which opens the GETs alone.
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
# Services that say 10000 where others say 9109, for a token that is not known and for a missing permission.
SAYS_10000 = {"dns", "rulesets", "ssl", "argo", "graphql"}


class Token:
    """The token that the emulator accepts, and what it may do."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.id = identifier()
        self.standing = "active"
        self.permissions: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Make it active again, with every permission that the site needs."""
        self.standing = "active"
        self.permissions = list(PERMISSIONS)

    def put(self, wanted: Mapping[str, Any]) -> None:
        """Set {"status", "permissions"}, either or both. Raises ValueError and changes nothing."""
        if not wanted or wanted.keys() - {"status", "permissions"}:
            raise ValueError(f'the body is {{"status": …, "permissions": […]}}, not {dict(wanted)!r}')
        status = wanted.get("status", self.standing)
        permissions = wanted.get("permissions", self.permissions)
        if status not in STANDINGS:
            raise ValueError(f"token status {status!r} is not one of {', '.join(STANDINGS)}")
        if not isinstance(permissions, list) or not all(isinstance(name, str) for name in permissions):
            raise ValueError(f"token permissions are a list of names, not {permissions!r}")
        if unknown := sorted(set(permissions) - KNOWN):
            raise ValueError(
                f"token permission {unknown[0]!r} is unknown; known are {', '.join(sorted(KNOWN))}"
            )
        self.standing, self.permissions = status, list(permissions)

    def redact(self, text: str) -> str:
        """Return the text without the token."""
        return text.replace(self._secret, "[token]")

    def check(self, headers: Mapping[str, str], service: str) -> None:
        """Refuse a request without a valid token, in the words of the service that it asks for."""
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
        if known and (service == "verify" or self.standing == "active"):
            return
        if service == "verify":
            raise ApiError(401, 1000, "Invalid API Token")
        if service in SAYS_10000:
            raise ApiError(401, 10000, "Authentication error")
        raise ApiError(403, 9109, "Invalid access token")

    def permit(self, method: str, wanted: Sequence[str], service: str) -> None:
        """Refuse what the token has no permission for, as the service does; before the body is looked at."""
        if not wanted or self.may(method, wanted):
            return
        rules = {name for name in self.permissions if "Rules" in name or "Compression" in name}
        if service == "rulesets" and rules:
            # It may see other phases: the rules engine itself says no, without a code.
            raise ApiError(403, None, "request is not authorized")
        if service in SAYS_10000:
            raise ApiError(403, 10000, "Authentication error")
        raise ApiError(403, 9109, "Unauthorized to access requested resource")

    def may(self, method: str, wanted: Sequence[str]) -> bool:
        """Tell whether the token has one of the permissions: with Write, or for a GET with Read."""
        enough = {f"{name} Write" for name in wanted}
        if method == "GET":
            enough |= {f"{name} Read" for name in wanted}
        return bool(enough & set(self.permissions))

    def describe(self) -> dict[str, Any]:
        """Return what the control API shows of it."""
        return {"status": self.standing, "permissions": list(self.permissions)}
