"""Faults of the api, which serves the sockets."""

from __future__ import annotations

from ..engine import Evidence, rule
from .stack import DEPLOY_STACK, stopped


@rule("site_is_down", DEPLOY_STACK, explained_by=("docker_stopped",), deploys=True)
def api_stopped(e: Evidence) -> str | None:
    """The api's container is not running."""
    return stopped(e, "api")


@rule(
    "site_is_down",
    "docker compose restart api helps for now; save docker compose logs api first, which has the reason.",
    deploys=True,
)
def api_hangs(e: Evidence) -> str | None:
    """The api's port accepts connections, and no response ever comes back."""
    failed = e.failed_probe("server", "api")
    if e.is_running("api") and failed and failed["stage"] == "http" and failed["status"] is None:
        return f"the api hangs: {failed['error']}"
    return None


@rule(
    "closes_after_100_seconds",
    "Set site_heartbeat_seconds below site_edge_idle_seconds and run site.yml --tags app_stack.",
)
def no_heartbeat(e: Evidence) -> str | None:
    """The api's heartbeat is not the inventory's, so an idle socket may be closed before it comes."""
    variables = (e.container("api") or {}).get("variables")
    heartbeat, expected = (variables or {}).get("APP_HEARTBEAT_SECONDS"), e.expect("heartbeat_seconds")
    if heartbeat is None or expected is None or float(heartbeat) == float(expected):
        return None
    return (
        f"the api sends a heartbeat after {float(heartbeat):g} s of silence instead of {float(expected):g}; "
        f"the edge closes idle sockets after {e.expect('edge_idle_seconds'):g} s."
    )


@rule(
    "site_is_down",
    "Run ansible-playbook site.yml --tags app_stack,nginx: both then use site_api_port.",
    explained_by=("api_stopped", "docker_stopped"),
    deploys=True,
)
def api_on_other_port(e: Evidence) -> str | None:
    """The api runs, but its port on the server is not the one that nginx is to use."""
    port, listening = e.expect("api_port"), e["server.listening"]
    if not e.is_running("api") or listening is None or any(each.endswith(f":{port}") for each in listening):
        return None
    return f"the api runs, but nothing listens on its port {port}."


@rule(
    "upstream_is_dead",
    "Run ansible-playbook site.yml --tags app_stack: it tests this and recreates the api if it fails.",
    explained_by=("docker_stopped", "api_stopped", "api_hangs", "api_on_other_port", "wrong_upstream"),
    deploys=True,
)
def upstream_dead(e: Evidence) -> str | None:
    """The api runs, but does not answer at the address or unix socket that nginx passes requests to."""
    dead = [each for each in e["server.upstream"] or [] if each["status"] is None]
    if not e.is_running("api") or not dead:
        return None
    return f"the api runs, but nginx does not reach it at {dead[0]['server']}: {dead[0]['error']}."


@rule(
    "changes_only_after_refresh",
    "docker compose logs api has the reason; the probe needs site_check_origin in app_stack_allowed_origins "
    "and a session that the api accepts (site_check_session).",
    explained_by=("server", "redis", "api"),
    symptom=True,
    deploys=True,
)
def api_socket(e: Evidence) -> str | None:
    """A socket straight to the api does not answer ping with pong, for a reason that no other rule knows."""
    failed = e.failed_probe("server", "api")
    return f"a socket to the api fails: {failed['error']}" if failed else None


@rule(
    "changes_only_after_refresh",
    "docker compose logs api worker has the reason; docker compose restart api helps for now.",
    explained_by=("server", "redis", "worker", "api"),
    symptom=True,
    deploys=True,
)
def canary_lost(e: Evidence) -> str | None:
    """The probe's upload was refused, or its events did not reach a socket of the api."""
    canary = e["server.canary"]
    if not canary or canary["received_ms"] is not None:
        return None
    if canary["error"]:
        return f"the probe can't upload a CV: {canary['error']}"
    return "the events of an upload did not reach a socket of the api."
