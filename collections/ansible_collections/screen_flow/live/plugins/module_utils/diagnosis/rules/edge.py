"""Faults of Cloudflare's zone."""

from __future__ import annotations

from urllib.parse import urlsplit

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
    """The zone has no record for the site's name."""
    return f"the zone has no DNS record for {e.expect('host')}." if e["edge.dns"] == [] else None


@rule("dns_record", "Set the record to proxied (the orange cloud) in the zone.")
def dns_not_proxied(e: Evidence) -> str | None:
    """The record resolves to the origin itself, so visitors bypass Cloudflare."""
    direct = [record for record in e["edge.dns"] or [] if not record["proxied"]]
    if not direct:
        return None
    return f"the DNS record of {e.expect('host')} is not proxied: {direct[0]['content']}."


@rule("dns_record", "Set the record to the server's address, or add its address to site_origin_addresses.")
def dns_other_address(e: Evidence) -> str | None:
    """The record makes Cloudflare connect to another server."""
    own = set(e.expect("origin_addresses") or e["server.addresses"] or [])
    records = [record for record in e["edge.dns"] or [] if record["type"] in ("A", "AAAA")]
    other = [record["content"] for record in records if record["content"] not in own]
    if not own or not other:
        return None
    server = ", ".join(sorted(own))
    return f"the DNS record of {e.expect('host')} is {', '.join(other)}, but the server is {server}."


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
