from tests.faults.kit import Fault, both, edit, restore_nginx, shell

CONF = "/etc/nginx/nginx.conf"
SITE = "/etc/nginx/sites-available/screen-flow"
UPSTREAM = "/etc/nginx/upstreams/screen-flow.conf"


def edited(rule, cause, file, command, *touches):
    """Return a fault: sed's command on one file of nginx."""
    return Fault(rule, cause, edit(file, command), restore_nginx, set(touches))


SOCKETS = r"/location \/api\/v1\/cv-processing\/ws\/ {/,/}/d"
FAULTS = [
    edited("connection_hard_coded", "with every request", SITE, r's/\$connection_upgrade/"upgrade"/', "map"),
    edited("http_1_0_upstream", "HTTP/1.0", SITE, "/proxy_http_version/d", "location"),
    edited("websocket_location_missing", "no location /api/v1", SITE, SOCKETS, "location"),
    edited("websocket_timeout_short", "after 5 s", SITE, "s/read_timeout 7200s/read_timeout 5s/", "location"),
    edited("buffering_on", "proxy_buffering", SITE, "s/proxy_buffering off/proxy_buffering on/", "location"),
    edited("wrong_upstream", "8001", UPSTREAM, "s|unix:.*;|127.0.0.1:8001;|", "upstream"),
    Fault(
        "upgrade_map_missing", "no map",
        inject=both(
            edit(SITE, "/proxy_set_header Connection/d"),
            edit(CONF, r"/map \$http_upgrade \$connection_upgrade/,/}/d"),
        ),
        revert=restore_nginx,
        touches={"map"},
    ),
    Fault(
        "nginx_stopped", "is not running",
        inject=shell("systemctl stop nginx"), revert=shell("systemctl start nginx"),
        touches={"nginx", "map", "location", "upstream", "certificate"},
    ),
    Fault(
        "nginx_configuration_invalid", "prox_pass",
        inject=shell(f"sed -i 's/proxy_pass/prox_pass/' {SITE}"), revert=restore_nginx,
        touches={"nginx", "map", "location", "upstream", "certificate"},
    ),
    Fault(
        "no_tls", "port 443",
        inject=edit(SITE, "/listen.*443/d", "/ssl_reject_handshake/d"), revert=restore_nginx,
        touches={"nginx", "certificate", "edge path"},
    ),
]  # fmt: skip
