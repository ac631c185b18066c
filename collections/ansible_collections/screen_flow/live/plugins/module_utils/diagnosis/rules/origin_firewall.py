"""Faults of the origin's firewall, which admits only Cloudflare."""

from __future__ import annotations

from ..engine import Evidence, rule
from .nftables import Ruleset

UNREACHABLE = (521, 522, 523)  # Cloudflare's statuses for an origin that it can't connect to
PROMPT = 1000  # milliseconds within which an idle server opens a socket to itself


def _unreachable(e: Evidence) -> str | None:
    """Return how Cloudflare fails to connect to a server whose nginx answers on the server itself."""
    edge, inside = e.failed_probe("edge", "edge"), e.probe("server", f"nginx port {e.expect('https_port')}")
    answered = inside.get("stage") in ("http", "pong") and inside["reason"] != "no_library"
    if not edge or not answered:
        return None
    if edge["status"] in UNREACHABLE:
        return (
            f"Cloudflare can't connect to the server (HTTP {edge['status']}), although nginx answers locally"
        )
    # Cloudflare returns 522 only after a longer timeout. A slow server looks the same, so nginx has to
    # answer promptly inside, and the request for the page has to time out too.
    prompt = inside["ok"] and (inside["handshake_ms"] or PROMPT) < PROMPT
    silent = edge["status"] is None and edge["stage"] == "http"
    if silent and e.reason("edge", "page") == "timeout" and prompt:
        return "Cloudflare times out connecting to the origin, although nginx answers locally"
    return None


# What breaks the path from the edge to nginx before or besides a firewall.
OTHER_CAUSES = (
    "api_hangs",
    "nginx_stopped",
    "no_tls",
    "dns_other_address",
    "dns_missing",
    "out_of_files",
    "docker_stopped",
)


@rule(
    "firewall",
    "Disable it (ufw disable; systemctl disable --now firewalld), or have it accept Cloudflare on nginx's "
    "ports: a packet has to pass every table.",
    explained_by=OTHER_CAUSES,
)
def other_firewall(e: Evidence) -> str | None:
    """Another program's rules drop the edge's packets, whatever this project's table accepts."""
    sentence, port = _unreachable(e), e.expect("https_port")
    rules = Ruleset((e["server.firewall"] or {}).get("nftables", []))
    dropping = rules.dropping(port) if sentence and rules.own_admits() else []
    if not dropping:
        return None
    return f"{sentence}: {' and '.join(dropping)} drops connections to port {port}."


@rule(
    "firewall",
    "Run ansible-playbook site.yml --tags origin_firewall: it admits Cloudflare's current ranges.",
    explained_by=("other_firewall", *OTHER_CAUSES),
)
def firewall_too_tight(e: Evidence) -> str | None:
    """Cloudflare can't connect to a server whose nginx answers on the server itself."""
    sentence = _unreachable(e)
    return f"{sentence}." if sentence else None


@rule(
    "firewall",
    "Run ansible-playbook site.yml --tags origin_firewall: it admits only Cloudflare's ranges on 80 and 443.",
)
def firewall_too_loose(e: Evidence) -> str | None:
    """A client that is not Cloudflare can connect to the origin, bypassing the edge."""
    if not e.expect("edge_only"):
        return None
    reached = [
        probe["address"]
        for name, probe in (e["edge.probes"] or {}).items()
        if name.startswith("origin") and probe["ok"]
    ]
    if not reached:
        return None
    return f"the control node, which is not Cloudflare, can connect to the origin at {', '.join(reached)}."
