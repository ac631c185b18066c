from tests.faults.kit import CACHE_RULES, Fault, both, edit, restore_nginx, restore_settings, setting
from tests.faults.layers.nginx import SITE
from tests.faults.layers.origin_certificate import certificate

CACHE_EVERYTHING = {
    "action": "set_cache_settings",
    "action_parameters": {"cache": True},
    "expression": 'starts_with(http.request.uri.path, "/api/")',
    "ref": "cache_everything",
}


def dns(**changes):
    """Return a step: change the zone's DNS records."""
    return lambda site: site.cloudflare("PUT", "dns", [{**record, **changes} for record in site.saved["dns"]])


def token(status):
    """Return a step: set the API token's status."""
    return lambda site: site.cloudflare("PUT", "token", {"status": status})


def pulls(enabled):
    """Return a step: the zone's switch for Authenticated Origin Pulls, by Cloudflare's API."""
    return lambda site: site.api("PUT", "/origin_tls_client_auth/settings", {"enabled": enabled})


def cache_rules(*rules):
    """Return a step: these rules after the zone's own in its cache phase."""
    return lambda site: site.api("PUT", CACHE_RULES, {"rules": [*site.saved["rules"], *rules]})


FAULTS = [
    Fault(
        "edge WebSockets off", "websockets_off", "WebSockets are off",
        inject=setting(websockets="off"), heal=restore_settings, touches={"setting"},
    ),
    Fault(
        "SSL off", "ssl_mode", "SSL is off",
        inject=setting(ssl="off"), heal=restore_settings, touches={"setting", "ssl"},
    ),
    Fault(
        "SSL flexible, the origin redirects", "ssl_mode", "endless loop",
        inject=both(
            edit(SITE, r"s|^    location / {|    if ($scheme = http) { return 301 https://$host/; }\n&|"),
            setting(ssl="flexible"),
        ),
        heal=both(restore_nginx, restore_settings),
        touches={"setting", "ssl", "nginx", "map", "location", "edge way", "api"},
    ),
    Fault(
        "strict with a self-signed certificate", "strict_needs_certificate", "self-signed",
        inject=both(certificate("-days 100", self_signed=True), setting(ssl="strict")),
        heal=both(restore_nginx, restore_settings),
        touches={"setting", "ssl", "certificate", "nginx"},
    ),
    Fault(
        "Rocket Loader on", "rocket_loader_on", "Rocket Loader",
        inject=setting(rocket_loader="on"), heal=restore_settings, touches={"setting"},
    ),
    # No visitor passes the edge with either of these, so nothing else can be seen there.
    Fault(
        "DNS record not proxied", "dns_not_proxied", "not proxied",
        inject=dns(proxied=False), heal=dns(), touches={"dns", "edge way"},
    ),
    Fault(
        "DNS record at another address", "dns_other_address", "192.0.2.1",
        inject=dns(content="192.0.2.1"), heal=dns(), touches={"dns", "edge way"},
    ),
    Fault(
        "token expired", "token_refused", "expired",
        inject=token("expired"), heal=token("active"), touches={"setting", "ssl", "dns"},
    ),
    Fault(
        "AOP on at one end only", "origin_pulls_one_end", "off in the zone",
        inject=pulls(False), heal=pulls(True), touches={"setting", "nginx", "location"},
    ),
    Fault(
        "WebSocket path cached", "websocket_path_cached", "the edge caches",
        inject=cache_rules(CACHE_EVERYTHING), heal=cache_rules(),
        touches={"setting", "api", "nginx", "edge way", "dns"},
    ),
]  # fmt: skip
