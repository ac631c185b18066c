"""Faults of the sign-in: the identity provider's key set, without which the api can't verify a session."""

from __future__ import annotations

from ..engine import Evidence, rule


@rule(
    "sign_in_fails",
    "docker compose logs api has the cause: the provider may be down, or app_stack_session_jwks_url or "
    "app_stack_session_ca_bundle wrong. The api retries by itself.",
    deploys=True,
)
def key_set(e: Evidence) -> str | None:
    """The api can't fetch the identity provider's key set."""
    status = (e["server.ready"] or {}).get("sign_in")
    if status not in ("unavailable", "stale"):
        return None
    variables = (e.container("api") or {}).get("variables") or {}
    address = variables.get("APP_SESSION_JWKS_URL", "the identity provider")
    if status == "stale":
        return (
            f"the api can't fetch the key set of {address}; the last one stays in use for at most 12 hours."
        )
    return (
        f"the api can't fetch the key set of {address}, so it can't verify any user's session: "
        "requests get 503, and sockets close with 1013."
    )
