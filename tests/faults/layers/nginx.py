from tests.faults.kit import Fault, both, edit, restore_nginx, shell

CONF = "/etc/nginx/nginx.conf"
SITE = "/etc/nginx/sites-available/screen-flow"
UPSTREAM = "/etc/nginx/upstreams/screen-flow.conf"


def edited(name, rule, cause, inject, *touches):
    """Return a fault of nginx's files."""
    return Fault(name, rule, cause, inject, restore_nginx, set(touches))


FAULTS = [
    edited(
        "upgrade map missing", "upgrade_map_missing", "no map",
        both(
            edit(SITE, "/proxy_set_header Connection/d"),
            edit(CONF, r"/map \$http_upgrade \$connection_upgrade/,/}/d"),
        ),
        "map",
    ),
    edited(
        "Connection upgrade hard-coded", "connection_hard_coded", "with every request",
        edit(SITE, r's/Connection \$connection_upgrade/Connection "upgrade"/'), "map",
    ),
    edited(
        "HTTP/1.0 upstream", "http_1_0_upstream", "HTTP/1.0",
        edit(SITE, "/proxy_http_version/d"), "location",
    ),
    edited(
        "WebSocket location missing", "websocket_location_missing", "no location /api/v1",
        edit(SITE, r"/location \/api\/v1\/cv-processing\/ws\/ {/,/}/d"), "location",
    ),
    edited(
        "WebSocket timeout 5 s", "websocket_timeout_short", "after 5 s",
        edit(SITE, "s/proxy_read_timeout 7200s/proxy_read_timeout 5s/"), "location",
    ),
    edited(
        "buffering on", "buffering_on", "proxy_buffering",
        edit(SITE, "s/proxy_buffering off/proxy_buffering on/"), "location",
    ),
    edited(
        "wrong upstream port", "wrong_upstream", "8001",
        edit(UPSTREAM, "s|unix:.*;|127.0.0.1:8001;|"), "upstream",
    ),
    Fault(
        "nginx stopped", "nginx_stopped", "is not running",
        inject=shell("systemctl stop nginx"), heal=shell("systemctl start nginx"),
        touches={"nginx", "map", "location", "upstream", "certificate"},
    ),
    edited(
        "nginx configuration invalid on disk", "nginx_configuration_invalid", "prox_pass",
        shell(f"sed -i 's/proxy_pass/prox_pass/' {SITE}"),
        "nginx", "map", "location", "upstream", "certificate",
    ),
    edited(
        "443 closed", "no_tls", "port 443",
        edit(SITE, "/listen.*443/d", "/ssl_reject_handshake/d"), "nginx", "certificate", "edge way",
    ),
]  # fmt: skip
