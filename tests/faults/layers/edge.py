from tests.faults.kit import ALIAS, CACHE_RULES, Fault, both, edit, restore_nginx, restore_settings, setting
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
        "websockets_off", "WebSockets are off",
        inject=setting(websockets="off"), revert=restore_settings, touches={"setting"},
    ),
    Fault(
        "ssl_mode", "SSL is off",
        inject=setting(ssl="off"), revert=restore_settings, touches={"setting", "ssl"},
    ),
    Fault(
        "ssl_mode", "endless loop",
        inject=both(
            edit(SITE, r"s|^    location / {|    if ($scheme = http) { return 301 https://$host/; }\n&|"),
            setting(ssl="flexible"),
        ),
        revert=both(restore_nginx, restore_settings),
        touches={"setting", "ssl", "nginx", "map", "location", "edge path", "api"},
    ),
    Fault(
        "strict_needs_certificate", "self-signed",
        inject=both(certificate("-days 100", self_signed=True), setting(ssl="strict")),
        revert=both(restore_nginx, restore_settings),
        touches={"setting", "ssl", "certificate", "nginx"},
    ),
    Fault(
        "rocket_loader_on", "Rocket Loader",
        inject=setting(rocket_loader="on"), revert=restore_settings, touches={"setting"},
    ),
    # No visitor passes the edge with either of these, so nothing else can be seen there.
    Fault(
        "dns_not_proxied", "not proxied",
        inject=dns(proxied=False), revert=dns(), touches={"dns", "edge path"},
    ),
    Fault(
        "dns_other_address", "192.0.2.1",
        inject=dns(content="192.0.2.1"), revert=dns(), touches={"dns", "edge path"},
    ),
    Fault(
        "alias_not_redirected", ALIAS,
        inject=edit(SITE, f"s/server_name {ALIAS};/server_name old.example.com;/"),
        revert=restore_nginx, touches={"dns", "setting", "ssl", "nginx", "certificate", "edge path"},
    ),
    Fault(
        "token_refused", "expired",
        inject=token("expired"), revert=token("active"), touches={"setting", "ssl", "dns"},
    ),
    Fault(
        "origin_pulls_one_end", "off in the zone",
        inject=pulls(False), revert=pulls(True), touches={"setting", "nginx", "location"},
    ),
    Fault(
        "websocket_path_cached", "the edge caches",
        inject=cache_rules(CACHE_EVERYTHING), revert=cache_rules(),
        touches={"setting", "api", "nginx", "edge path", "dns"},
    ),
]  # fmt: skip
