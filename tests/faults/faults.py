"""The faults: how each is made on a healthy site, how it is healed, and what diagnosis must say of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

CONF = "/etc/nginx/nginx.conf"
SITE = "/etc/nginx/sites-available/screen-flow"
API_SOCKET = "/opt/screen-flow/run/api.sock"
UPSTREAM = "/etc/nginx/upstreams/screen-flow.conf"
PEM = "/etc/ssl/certs/screen-flow-origin.pem"
KEY = "/etc/ssl/private/screen-flow-origin.key"
SAVED = "/opt/site-evidence/healthy"
RELOAD = "nginx -t -q && systemctl reload nginx"


@dataclass(frozen=True)
class Fault:
    """One fault. `touches` names what it changes: two that touch the same can't be made at once."""

    name: str
    rule: str
    layer: str
    says: str
    inject: Callable
    heal: Callable
    touches: frozenset


FAULTS = []


def fault(name, rule, layer, says, inject, heal, *touches):
    FAULTS.append(Fault(name, rule, layer, says, inject, heal, frozenset(touches)))


def save(site):
    """Keep what the faults will change, so that healing is exact."""
    site.sh(f"rm -rf {SAVED} && mkdir -p {SAVED} && cp -a /etc/nginx {SAVED}/nginx")
    site.sh(f"cp -a {PEM} {KEY} {SAVED}/")
    state = site.cloudflare("GET", "state")
    kept = {name: state["settings"][name]["value"] for name in ("ssl", "websockets", "rocket_loader")}
    records = [{key: r[key] for key in ("type", "name", "content", "proxied")} for r in state["dns"]]
    writable = ("action", "action_parameters", "expression", "description", "enabled", "ref")
    rules = [{key: rule[key] for key in writable if key in rule} for rule in site.rules()]
    limit = redis_cli("CONFIG GET maxmemory\n")(site).split()[-1]
    return {"settings": kept, "dns": records, "maxmemory": limit, "rules": rules}


def restore_nginx(site):
    site.sh(f"cp -a {SAVED}/nginx/. /etc/nginx/ && cp -a {SAVED}/{PEM.rpartition('/')[2]} {PEM} "
            f"&& cp -a {SAVED}/{KEY.rpartition('/')[2]} {KEY} && {RELOAD} && sleep 0.3")  # fmt: skip


def edit(file, *commands):
    """Return an injection: sed's commands on one file of nginx, then a reload."""
    script = " ".join(f"-e '{command}'" for command in commands)
    return lambda site: site.sh(f"sed -i {script} {file} && {RELOAD} && sleep 0.3")


def setting(**values):
    return lambda site: site.cloudflare("PATCH", "settings", values)


def restore_settings(site):
    site.cloudflare("PATCH", "settings", site.saved["settings"])


def dns(**changes):
    return lambda site: site.cloudflare("PUT", "dns", [{**r, **changes} for r in site.saved["dns"]])


def restore_dns(site):
    site.cloudflare("PUT", "dns", site.saved["dns"])


def up(site):
    # Without --wait: a health check that a busy machine was too slow for ends it; the suite waits itself.
    site.compose("up --detach")


def both(*steps):
    def run(site):
        for step in steps:
            step(site)

    return run


def upgrade_map_missing(site):
    edit(SITE, "/proxy_set_header Connection/d")(site)
    edit(CONF, r"/map \$http_upgrade \$connection_upgrade/,/}/d")(site)


fault(
    "upgrade map missing", "upgrade_map_missing", "nginx", "no map", upgrade_map_missing, restore_nginx, "map"
)
fault(
    "Connection upgrade hard-coded",
    "connection_hard_coded",
    "nginx",
    "with every request",
    edit(SITE, r's/Connection \$connection_upgrade/Connection "upgrade"/'),
    restore_nginx,
    "map",
)
fault(
    "HTTP/1.0 upstream",
    "http_1_0_upstream",
    "nginx",
    "HTTP/1.0",
    edit(SITE, "/proxy_http_version/d"),
    restore_nginx,
    "location",
)
fault(
    "WebSocket location missing",
    "websocket_location_missing",
    "nginx",
    "no location /api/v1",
    edit(SITE, r"/location \/api\/v1\/cv-processing\/ws\/ {/,/}/d"),
    restore_nginx,
    "location",
)
fault(
    "WebSocket timeout 5 s",
    "websocket_timeout_short",
    "nginx",
    "after 5 s",
    edit(SITE, "s/proxy_read_timeout 7200s/proxy_read_timeout 5s/"),
    restore_nginx,
    "location",
)
fault(
    "buffering on",
    "buffering_on",
    "nginx",
    "proxy_buffering",
    edit(SITE, "s/proxy_buffering off/proxy_buffering on/"),
    restore_nginx,
    "location",
)
fault(
    "wrong upstream port",
    "wrong_upstream",
    "nginx",
    "8001",
    edit(UPSTREAM, "s|unix:.*;|127.0.0.1:8001;|"),
    restore_nginx,
    "upstream",
)
fault(
    "way to the api dead",
    "upstream_dead",
    "api",
    "No such file",
    lambda site: site.sh(f"mv {API_SOCKET} {API_SOCKET}.away"),
    lambda site: site.sh(f"mv {API_SOCKET}.away {API_SOCKET}"),
    "upstream",
    "api",
    "edge way",
)
fault(
    "nginx stopped",
    "nginx_stopped",
    "nginx",
    "does not run",
    lambda site: site.sh("systemctl stop nginx"),
    lambda site: site.sh("systemctl start nginx"),
    "nginx",
    "map",
    "location",
    "upstream",
    "certificate",
)
fault(
    "nginx configuration invalid on disk",
    "nginx_configuration_invalid",
    "nginx",
    "prox_pass",
    lambda site: site.sh(f"sed -i 's/proxy_pass/prox_pass/' {SITE}"),
    restore_nginx,
    "nginx",
    "map",
    "location",
    "upstream",
    "certificate",
)


AUTHORITY = f"{SAVED}/authority"


def certificate(arguments, name=None, self_signed=False):
    """Return an injection: another certificate with the same key, loaded.

    Of an authority unless told otherwise: a self-signed one is a second fault where the zone is strict.
    """

    def inject(site):
        host = name or site.host
        issuer = ""
        if not self_signed:
            issuer = f"-CA {AUTHORITY}.pem -CAkey {AUTHORITY}.key"
            site.sh(f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {AUTHORITY}.key -out {AUTHORITY}.pem "
                    f"-subj /CN=Authority 2>/dev/null")  # fmt: skip
        site.sh(f"openssl req -x509 -key {KEY} -subj /CN={host} -addext subjectAltName=DNS:{host} "
                f"{issuer} {arguments} -out {PEM} 2>/dev/null && {RELOAD} && sleep 0.3")  # fmt: skip

    return inject


fault(
    "certificate expired",
    "certificate_expired",
    "origin_certificate",
    "expired",
    certificate("-not_before 20240101000000Z -not_after 20250101000000Z"),
    restore_nginx,
    "certificate",
)
fault(
    "certificate for another name",
    "certificate_other_name",
    "origin_certificate",
    "other.example.com",
    certificate("-days 100", "other.example.com"),
    restore_nginx,
    "certificate",
)
fault(
    "key mismatch",
    "key_mismatch",
    "origin_certificate",
    "does not belong",
    lambda site: site.sh(f"openssl ecparam -genkey -name prime256v1 -noout -out {KEY}"),
    restore_nginx,
    "certificate",
    "nginx",
    "map",
    "location",
    "upstream",
)
fault(
    "443 closed",
    "no_tls",
    "nginx",
    "port 443",
    edit(SITE, "/listen.*443/d", "/ssl_reject_handshake/d"),
    restore_nginx,
    "nginx",
    "certificate",
    "edge way",
)


def tight(sign):
    return lambda site: site.sh(
        f"iptables {sign} INPUT -s {site.edge_address} -p tcp -m multiport --dports 80,443 -j DROP"
    )


fault(
    "firewall too tight",
    "firewall_too_tight",
    "origin_firewall",
    "though nginx answers",
    tight("-I"),
    tight("-D"),
    "edge way",
    "api",
    "redis",
    "nginx",
    "files",
)
fault(
    "api stopped",
    "api_stopped",
    "api",
    "api is stopped",
    lambda site: site.compose("stop --timeout 5 api"),
    up,
    "api",
    "edge way",
)
fault(
    "api hung",
    "api_hangs",
    "api",
    "hangs",
    lambda site: site.sh("pkill -STOP -f 'app[.]main'"),
    lambda site: site.sh("pkill -CONT -f 'app[.]main'"),
    "api",
    "edge way",
)


def without_heartbeat(site):
    override = 'services: {api: {environment: {APP_HEARTBEAT_SECONDS: "99"}}}'
    site.sh("cat >/opt/site-evidence/fault.yaml", text=override)
    site.compose("-f compose.yaml -f /opt/site-evidence/fault.yaml up --detach api")


fault("api without heartbeat in time", "no_heartbeat", "api", "after 99 s", without_heartbeat, up, "api")
fault(
    "Redis stopped",
    "redis_stopped",
    "redis",
    "redis is stopped",
    lambda site: site.compose("stop --timeout 5 redis"),
    up,
    "redis",
)


def redis_cli(commands):
    return lambda site: site.sh(
        "cd /opt/screen-flow && docker compose exec -T redis redis-cli", text=commands
    )


fault(
    "worker stopped",
    "worker_stopped",
    "worker",
    "worker is stopped",
    lambda site: site.compose("stop --timeout 5 worker"),
    up,
    "worker",
)


def inside(service, file, expression):
    """Return an injection: sed on a file of a container, past its read-only root."""

    def inject(site):
        merged = site.sh(
            "docker inspect --format '{{.GraphDriver.Data.MergedDir}}' "
            f"$(cd /opt/screen-flow && docker compose ps --quiet {service})"
        ).strip()
        site.sh(f"sed -i '{expression}' {merged}/{file}")

    return inject


EVENTS = "opt/screen-flow/app/events.py"
fault(
    "events published to another channel",
    "other_channel",
    "worker",
    "user:site-check:event,",
    inside("worker", EVENTS, 's/:events"/:event"/'),
    inside("worker", EVENTS, 's/:event"/:events"/'),
    "worker",
    "redis",
)
fault(
    "disk full",
    "disk_full",
    "server",
    "/var/log/nginx",
    lambda site: site.sh(
        "mount -t tmpfs -o size=1m tmpfs /var/log/nginx; cat /dev/zero >/var/log/nginx/full", check=False
    ),
    lambda site: site.sh("umount -l /var/log/nginx && systemctl reload nginx"),
    "disk",
    "nginx",
)
fault(
    "out of file descriptors",
    "out_of_files",
    "server",
    "nginx is out of files",
    lambda site: site.sh(
        "for p in $(pgrep -f 'nginx: worker process$'); do n=$(ls /proc/$p/fd | wc -l); "
        "runuser -u www-data -- prlimit --pid $p --nofile=$n: ; done"
    ),
    # A worker without a free file may miss the reload and go on.
    lambda site: site.sh("systemctl restart nginx; sleep 0.3"),
    "files",
    "nginx",
    "edge way",
)
fault(
    "edge WebSockets off",
    "websockets_off",
    "edge",
    "WebSockets are off",
    setting(websockets="off"),
    restore_settings,
    "setting",
)
fault("SSL off", "ssl_mode", "edge", "SSL is off", setting(ssl="off"), restore_settings, "setting", "ssl")
fault(
    "SSL flexible, the origin redirects",
    "ssl_mode",
    "edge",
    "without end",
    both(
        edit(SITE, r"s|^    location / {|    if ($scheme = http) { return 301 https://$host/; }\n&|"),
        setting(ssl="flexible"),
    ),
    both(restore_nginx, restore_settings),
    "setting",
    "ssl",
    "nginx",
    "map",
    "location",
    "edge way",
    "api",
)
fault(
    "strict with a self-signed certificate",
    "strict_needs_certificate",
    "edge",
    "self-signed",
    both(certificate("-days 100", self_signed=True), setting(ssl="strict")),
    both(restore_nginx, restore_settings),
    "setting",
    "ssl",
    "certificate",
    "nginx",
)
fault(
    "Rocket Loader on",
    "rocket_loader_on",
    "edge",
    "Rocket Loader",
    setting(rocket_loader="on"),
    restore_settings,
    "setting",
)
# No visitor's way leads over the edge then, so nothing else can be seen there.
fault(
    "DNS record not proxied",
    "dns_not_proxied",
    "edge",
    "not proxied",
    dns(proxied=False),
    restore_dns,
    "dns",
    "edge way",
)
fault(
    "DNS record at another address",
    "dns_other_address",
    "edge",
    "192.0.2.1",
    dns(content="192.0.2.1"),
    restore_dns,
    "dns",
    "edge way",
)
PAGE = "srv/frontend/index.html"
fault(
    "page uses ws:// on https",
    "page_opens_ws",
    "page",
    "ws://screen-flow",
    inside("api", PAGE, 's|</body>|<script>new WebSocket("ws://screen-flow.localhost/")</script></body>|'),
    inside("api", PAGE, "s|<script>new WebSocket[^<]*</script>||"),
    "api",
    "edge way",
    "nginx",
    "dns",
    "ssl",
    "setting",
    "page",
    "redis",
)
fault(
    "clock skew",
    "clock_skew",
    "server",
    "ahead of",
    lambda site: site.sh(
        "printf '+1h' >/etc/faketimerc; ls /usr/lib/*/faketime/libfaketime.so.1 >/etc/ld.so.preload"
    ),
    lambda site: site.sh("rm -f /etc/ld.so.preload /etc/faketimerc"),
    "clock",
    "certificate",
)
fault(
    "token expired",
    "token_refused",
    "edge",
    "expired",
    lambda site: site.cloudflare("PUT", "token", {"status": "expired"}),
    lambda site: site.cloudflare("PUT", "token", {"status": "active"}),
    "setting",
    "ssl",
    "dns",
)

# The operator of Redis may not configure it, but may give himself the right to.
ALLOW = "ACL SETUSER operator +config\n"
fault(
    "Redis full",
    "redis_full",
    "redis",
    "full",
    redis_cli(ALLOW + "CONFIG SET maxmemory 900kb\n"),
    lambda site: redis_cli(f"CONFIG SET maxmemory {site.saved['maxmemory']}\nACL LOAD\n")(site),
    "redis",
)
fault(
    "Redis password wrong",
    "redis_password",
    "redis",
    "refuses the password",
    redis_cli("ACL SETUSER app resetpass >wrong\nCLIENT KILL USER app\n"),
    redis_cli("ACL LOAD\n"),
    "redis",
    "api",
    "worker",
)
fault(
    "firewall too loose",
    "firewall_too_loose",
    "origin_firewall",
    "is not Cloudflare",
    lambda site: site.sh("nft insert rule inet origin_firewall input tcp dport 443 accept"),
    lambda site: site.sh("systemctl reload origin-firewall"),
    "firewall",
    "edge way",
    "nginx",
)


def pulls(enabled):
    """Return an injection: the zone's switch for Authenticated Origin Pulls, by Cloudflare's API."""
    return lambda site: site.api("PUT", "/origin_tls_client_auth/settings", {"enabled": enabled})


fault(
    "AOP on at one end only",
    "origin_pulls_one_end",
    "edge",
    "off in the zone",
    pulls(False),
    pulls(True),
    "setting",
    "nginx",
    "location",
)

CACHE = "/rulesets/phases/http_request_cache_settings/entrypoint"
EVERYTHING = {
    "action": "set_cache_settings",
    "action_parameters": {"cache": True},
    "expression": 'starts_with(http.request.uri.path, "/api/")',
    "ref": "cache_everything",
}


def cached(*rules):
    """Return an injection: these rules after the zone's own in its cache phase."""
    return lambda site: site.api("PUT", CACHE, {"rules": [*site.saved["rules"], *rules]})


fault(
    "WebSocket path cached",
    "websocket_path_cached",
    "edge",
    "the edge caches",
    cached(EVERYTHING),
    cached(),
    "setting",
    "api",
    "nginx",
    "edge way",
    "dns",
)


def by_name(name):
    """Return a fault by its name."""
    return next(fault for fault in FAULTS if fault.name == name)


def identifier(fault):
    return re.sub(r"\W+", "-", fault.name)
