"""Faults of Cloudflare's zone."""

from __future__ import annotations

from urllib.parse import urlsplit

from ...evidence.edge import ALIAS_PATH
from ..engine import Evidence, rule

APPLY_ZONE = "Run ansible-playbook playbooks/edge.yml: it sets the zone to what the inventory defines."
# Values of CF-Cache-Status for a path that the edge treats as cacheable.
CACHED = ("HIT", "MISS", "EXPIRED", "STALE", "REVALIDATED", "UPDATING")


@rule("api_token", "Create a new token at dash.cloudflare.com/profile/api-tokens and put it into the vault.")
def token_refused(e: Evidence) -> str | None:
    """Cloudflare's API rejects the token, so the zone can be neither read nor set."""
    token = e["edge.token"]
    if not token or token["ok"] or token["status"] == "unknown":
        return None
    if token["status"] in ("expired", "disabled"):
        return f"the API token is {token['status']}."
    return "Cloudflare does not recognize the API token."


@rule("edge_settings", APPLY_ZONE)
def websockets_off(e: Evidence) -> str | None:
    """The zone's setting WebSockets is off: upgrades reach the origin as plain requests."""
    return "WebSockets are off in the zone." if e["edge.settings.websockets"] == "off" else None


@rule("ssl_error", APPLY_ZONE)
def ssl_mode(e: Evidence) -> str | None:
    """Off disables https; Flexible uses plain HTTP to the origin, and loops if that redirects."""
    mode = e["edge.settings.ssl"]
    if mode == "off":
        return "SSL is off in the zone: https is redirected to http, and wss:// fails with it."
    if mode == "flexible":
        loops = e["server.nginx_config.redirects_http"] or _redirects_to_itself(e)
        return "SSL is Flexible in the zone: Cloudflare uses plain HTTP to the origin" + (
            ", which redirects to https in an endless loop." if loops else "."
        )
    return None


def _redirects_to_itself(e: Evidence) -> bool:
    location, site = e["edge.page.location"], e.expect("site_url")
    return bool(location and site) and urlsplit(location).hostname == urlsplit(site).hostname


@rule(
    "ssl_error",
    "Use an origin certificate that strict accepts (origin_certificate_source), or set full.",
)
def strict_needs_certificate(e: Evidence) -> str | None:
    """Full (strict) requires a certificate of a public authority or of Origin CA."""
    certificate = e["server.certificate"]
    if e["edge.settings.ssl"] != "strict" or not certificate or not certificate["self_signed"]:
        return None
    return f"SSL is Full (strict) in the zone, but {certificate['file']} is self-signed."


@rule("edge_settings", APPLY_ZONE)
def rocket_loader_on(e: Evidence) -> str | None:
    """Rocket Loader rewrites the page's scripts and delays the one that opens the socket."""
    page = e["edge.page"]
    seen = page["rocket_loader"] if page and page["status"] == 200 else None
    if seen or (seen is None and e["edge.settings.rocket_loader"] == "on"):
        return "Rocket Loader is on: it rewrites the page's scripts."
    return None


@rule("edge_settings", APPLY_ZONE)
def websocket_path_cached(e: Evidence) -> str | None:
    """The edge treats requests below the WebSocket path as cacheable."""
    path, cache = e.expect("websocket_path"), e["edge.socket_path.cache"]
    return f"the edge caches {path} (CF-Cache-Status: {cache})." if cache in CACHED else None


@rule("dns_record", APPLY_ZONE)
def dns_missing(e: Evidence) -> str | None:
    """The zone has no record for a name of the site."""
    if e["edge.dns"] is None:
        return None
    known = {record["name"] for record in e["edge.dns"]}
    lacking = [name for name in e.names if name not in known]
    return f"the zone has no DNS record for {' and '.join(lacking)}." if lacking else None


@rule("dns_record", "Set the record to proxied (the orange cloud) in the zone.")
def dns_not_proxied(e: Evidence) -> str | None:
    """The record resolves to the origin itself, so visitors bypass Cloudflare."""
    direct = [record for record in e["edge.dns"] or [] if not record["proxied"]]
    if not direct:
        return None
    return f"the DNS record of {direct[0]['name']} is not proxied: {direct[0]['content']}."


@rule("dns_record", "Set the record to the server's address, or add its address to site_origin_addresses.")
def dns_other_address(e: Evidence) -> str | None:
    """The record makes Cloudflare connect to another server."""
    own = set(e.expect("origin_addresses") or e["server.addresses"] or [])
    records = [record for record in e["edge.dns"] or [] if record["type"] in ("A", "AAAA")]
    other = [record for record in records if record["content"] not in own]
    if not own or not other:
        return None
    name, server = other[0]["name"], ", ".join(sorted(own))
    found = ", ".join(record["content"] for record in other if record["name"] == name)
    return f"the DNS record of {name} is {found}, but the server is {server}."


@rule(
    "authenticated_origin_pulls",
    "Run ansible-playbook playbooks/authenticated_origin_pulls.yml: it sets both ends to site_origin_pulls.",
)
def origin_pulls_one_end(e: Evidence) -> str | None:
    """Authenticated Origin Pulls need both ends: a certificate at Cloudflare and verification by nginx."""
    pulls, verify = e["edge.origin_pulls"], e["server.nginx_config.verify_client"]
    if not pulls or verify is None:
        return None
    edge = pulls["zone"] or pulls["global"]
    if verify == "required" and not edge:
        return "nginx requires a client certificate, but Authenticated Origin Pulls are off in the zone."
    if verify == "off" and edge:
        return "Authenticated Origin Pulls are on in the zone, but nginx does not verify the certificate."
    # "optional" is the state between the two: nginx rejects no client.
    return None


@rule(
    "changes_only_after_refresh",
    f"The HTTP status names the side at fault (52x: the connection to the origin). {APPLY_ZONE}",
    explained_by=("server", "redis", "api", "nginx", "origin_certificate", "origin_firewall", "edge"),
    symptom=True,
    deploys=True,
)
def edge_socket(e: Evidence) -> str | None:
    """A socket through Cloudflare fails though the origin is healthy, for a reason that no rule knows."""
    failed = e.failed_probe("edge", "edge")
    return f"a socket through the edge fails: {failed['error']}" if failed else None


def alias_fault(e: Evidence, name: str) -> str | None:
    """Return how an alias fails to redirect to the site, as a sentence; None where it does, or is unknown."""
    found, site = (e["edge.aliases"] or {}).get(name), e.expect("site_url")
    if not found:
        return None
    if found["error"]:
        return f"{name} fails through the edge: {found['error']}"
    if found["status"] in (525, 526):
        return (
            f"Cloudflare rejects the origin's certificate for {name}, or gets none (HTTP {found['status']})."
        )
    if found["status"] not in (301, 308):
        return f"{name} returns HTTP {found['status']} instead of a permanent redirect to {site}."
    if found["location"] != site + ALIAS_PATH:
        return f"{name} redirects {ALIAS_PATH} to {found['location']} instead of {site}{ALIAS_PATH}."
    return None


@rule(
    "alias",
    "Run ansible-playbook site.yml: it puts the names of site_aliases into certificate, nginx and DNS.",
    explained_by=(
        "origin_certificate",
        "origin_firewall",
        "nginx_stopped",
        "nginx_configuration_invalid",
        "nginx_not_reloaded",
        "no_tls",
        "out_of_files",
        "ssl_mode",
        "strict_needs_certificate",
        "dns_missing",
        "dns_not_proxied",
        "dns_other_address",
    ),
    symptom=True,
)
def alias_not_redirected(e: Evidence) -> str | None:
    """A further name of the site does not redirect to it."""
    return next((fault for name in e.names[1:] if (fault := alias_fault(e, name))), None)
