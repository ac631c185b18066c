"""Faults of nginx, which passes the upgrade to the api."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..engine import Evidence, rule

DEPLOY_NGINX = (
    "Run ansible-playbook site.yml --tags nginx: it writes the whole configuration, tests and reloads it."
)
RELOAD = "Load it: nginx -t && systemctl reload nginx."


@rule("site_is_down", "On the server, run nginx -t to see whether it can start; then systemctl start nginx.")
def nginx_stopped(e: Evidence) -> str | None:
    """Nginx is not running."""
    nginx = e["server.services.nginx"]
    if not nginx or nginx["active"] in ("active", "reloading"):
        return None
    return f"nginx is not running ({nginx['active']}, {nginx['result']})."


@rule("nginx_configuration_is_wrong", DEPLOY_NGINX, explained_by=("key_mismatch", "disk_full"))
def nginx_configuration_invalid(e: Evidence) -> str | None:
    """The configuration on disk fails nginx's own test; a running nginx keeps the old one."""
    test = e["server.nginx_test"]
    if not test or test["ok"]:
        return None
    runs = (e["server.services.nginx"] or {}).get("active") == "active"
    still = " nginx still runs with the old one, and would not start again." if runs else ""
    return f"nginx's configuration on disk is invalid: {test['error']}.{still}"


@rule(
    "nginx_configuration_is_wrong",
    RELOAD,
    explained_by=(
        "key_mismatch",
        "certificate_not_loaded",
        "nginx_configuration_invalid",
        "nginx_stopped",
        "nginx_reload_refused",
        # A process's start is counted from the clock, a file's change is not.
        "clock_skew",
    ),
    deploys=True,
)
def nginx_not_reloaded(e: Evidence) -> str | None:
    """Files of the configuration are newer than what nginx runs with."""
    loaded = e["server.nginx_loaded"]
    if not loaded or not loaded["changed"]:
        return None
    return f"nginx was not reloaded since {', '.join(loaded['changed'])} changed."


@rule(
    "nginx_configuration_is_wrong",
    "Undo the change that the message names, or restart nginx: systemctl restart nginx. That closes every "
    "socket; clients reconnect and resume.",
    explained_by=("key_mismatch", "nginx_configuration_invalid", "nginx_stopped"),
)
def nginx_reload_refused(e: Evidence) -> str | None:
    """Nginx refused to load a configuration that passes its own test, and runs the old one."""
    loaded = e["server.nginx_loaded"]
    if not loaded or not loaded["changed"] or not loaded["refusal"]:
        return None
    return f"nginx refused to load {', '.join(loaded['changed'])}: {loaded['refusal']}."


def _socket_location(e: Evidence) -> Mapping[str, Any] | None:
    """Return the location that serves sockets: their own, or the root."""
    config: Mapping[str, Any] = e["server.nginx_config"] or {}
    return config.get("websocket_location") or config.get("root_location")


@rule("bad_request_400", DEPLOY_NGINX)
def upgrade_map_missing(e: Evidence) -> str | None:
    """Without the map from Upgrade to Connection the upgrade is lost, and the api receives a plain GET."""
    config = e["server.nginx_config"]
    if not config or config["upgrade_map"]:
        return None
    return "nginx has no map of $http_upgrade to $connection_upgrade, so the upgrade does not reach the api."


@rule("bad_request_400", DEPLOY_NGINX)
def connection_hard_coded(e: Evidence) -> str | None:
    """`Connection: upgrade` on every request, also where the client did not request an upgrade."""
    for name in ("websocket_location", "root_location"):
        location = e[f"server.nginx_config.{name}"]
        if location and location["connection"].lower() == "upgrade":
            return (
                f"the location {location['path']} sends Connection: upgrade with every request, "
                "instead of $connection_upgrade."
            )
    return None


@rule("bad_request_400", DEPLOY_NGINX, explained_by=("upgrade_map_missing", "websocket_location_missing"))
def upgrade_not_passed(e: Evidence) -> str | None:
    """The location for sockets does not pass the headers Upgrade and Connection."""
    location = _socket_location(e)
    if not location or (location["upgrade"] and location["connection"].lower() != "close"):
        return None
    return f"the location {location['path']} does not pass Upgrade and Connection to the api."


@rule("bad_request_400", DEPLOY_NGINX)
def http_1_0_upstream(e: Evidence) -> str | None:
    """HTTP/1.0, nginx's default towards the api, has no upgrade."""
    location = _socket_location(e)
    if not location or location["http_version"] != "1.0":
        return None
    return f"the location {location['path']} uses HTTP/1.0 towards the api, which has no upgrade."


@rule("closes_after_100_seconds", DEPLOY_NGINX)
def websocket_location_missing(e: Evidence) -> str | None:
    """Sockets pass through the location of ordinary requests, without the upgrade and with its timeouts."""
    config = e["server.nginx_config"]
    if not config or not config["server_found"] or config["websocket_location"]:
        return None
    path = e.expect("websocket_path")
    return f"nginx has no location {path}: sockets are treated as ordinary requests."


@rule("closes_after_100_seconds", DEPLOY_NGINX)
def websocket_timeout_short(e: Evidence) -> str | None:
    """Nginx closes sockets that the edge would still keep open."""
    location, idle = e["server.nginx_config.websocket_location"], e.expect("edge_idle_seconds")
    if not location or idle is None or location["read_timeout"] is None or location["read_timeout"] > idle:
        return None
    return f"nginx closes a socket after {location['read_timeout']:g} s of silence (proxy_read_timeout)."


@rule("changes_only_after_refresh", DEPLOY_NGINX)
def buffering_on(e: Evidence) -> str | None:
    """Nginx buffers or caches what the api sends."""
    location = e["server.nginx_config.websocket_location"]
    if not location:
        return None
    on = [name for name in ("buffering", "cache") if location[name]]
    return f"proxy_{' and proxy_'.join(on)} is on in the location {location['path']}." if on else None


@rule("site_is_down", DEPLOY_NGINX)
def wrong_upstream(e: Evidence) -> str | None:
    """Nginx passes requests to a port or a unix socket on which the api does not listen."""
    location, expected = _socket_location(e), e.expect("upstream")
    if not location or not location["proxy_pass"] or not expected:
        return None
    authority = urlsplit(location["proxy_pass"]).netloc
    servers = (e["server.nginx_config.upstreams"] or {}).get(authority, [authority])
    # A host can be written in several ways; the port or the path can't.
    if any(server.endswith(f":{expected.rpartition(':')[2]}") for server in servers):
        return None
    return f"nginx passes sockets to {', '.join(servers)}, but the api listens on {expected}."


@rule("ssl_error", DEPLOY_NGINX, explained_by=("nginx_stopped",))
def no_tls(e: Evidence) -> str | None:
    """Nothing listens on 443, where Cloudflare's Full and Full (strict) connect."""
    port, listening = e.expect("https_port"), e["server.listening"]
    if port is None or listening is None or any(each.endswith(f":{port}") for each in listening):
        return None
    return f"nothing listens on port {port}, where Cloudflare connects."


@rule(
    "changes_only_after_refresh",
    f"The last lines of /var/log/nginx/error.log have the reason. {DEPLOY_NGINX}",
    explained_by=("server", "redis", "api", "origin_certificate", "nginx"),
    symptom=True,
    deploys=True,
)
def nginx_socket(e: Evidence) -> str | None:
    """A socket through nginx fails although the api is healthy, for a reason that no other rule knows."""
    for name, probe in (e["server.probes"] or {}).items():
        if name.startswith("nginx") and not probe["ok"] and not _redirects(probe):
            return f"a socket through {name} fails: {probe['error']}"
    return None


def _redirects(probe: Mapping[str, Any]) -> bool:
    """Return whether port 80 redirects to https, which is allowed."""
    return probe["status"] in (301, 302, 307, 308) and probe["url"].startswith("ws://")
