"""The evidence document of a healthy site, and how tests change it."""

from ansible_collections.screen_flow.live.plugins.module_utils.evidence.document import FORMAT

NOW = 1_800_000_000.0
EXPECTED = {
    "site_url": "https://www.example.com",
    "host": "www.example.com",
    "aliases": [],
    "websocket_path": "/api/v1/cv-processing/ws/",
    "user_id": "site-check",
    "api_port": 8000,
    "upstream": "unix:/opt/screen-flow/run/api.sock",
    "http_port": 80,
    "https_port": 443,
    "heartbeat_seconds": 30,
    "edge_idle_seconds": 100,
    "origin_addresses": [],
    "edge_only": True,
    "services": ["api", "worker", "extractor", "redis", "search"],
    "reference_backend": True,
    "session": True,
}

RECORDS = [
    {"type": "A", "name": name, "content": "203.0.113.7", "proxied": True}
    for name in ("www.example.com", "example.com")
]
# A site whose alias redirects to it.
REDIRECT = {"status": 308, "location": "https://www.example.com/site-check?alias", "error": ""}
WITH_ALIAS = {
    "expected/aliases": ["example.com"],
    "server/certificate/names": ["www.example.com", "example.com"],
    "edge/dns": RECORDS,
    "edge/aliases": {"example.com": REDIRECT},
}


def probed(name, url="wss://www.example.com/", **found):
    """Return the result of a probe that succeeded."""
    return {
        "name": name, "url": url, "address": "127.0.0.1:443", "ok": True, "stage": "pong", "reason": "",
        "error": "", "status": 101, "server": "", "close_code": None, "handshake_ms": 1.0, "pong_ms": 1.0,
        **found,
    }  # fmt: skip


def failing(name, stage, status=None, **found):
    """Return the result of a probe that failed at a stage."""
    reason = "status" if stage == "http" and status else "closed" if stage == "pong" else "timeout"
    return probed(name, ok=False, stage=stage, status=status, reason=reason, error="It fails.", **found)


def location(path):
    """Return a location of nginx that passes sockets on as it should."""
    return {
        "path": path, "proxy_pass": "http://screen-flow", "http_version": "1.1", "upgrade": "$http_upgrade",
        "connection": "$connection_upgrade", "host": "$host", "buffering": False, "cache": False,
        "read_timeout": 7200, "send_timeout": 7200,
    }  # fmt: skip


def container(**state):
    """Return the state of a healthy container."""
    return {
        "id": "1", "image": "x", "state": "running", "health": "healthy", "health_output": [],
        "redis_code": None, "exit_code": 0,
        "out_of_memory": False, "restarts": 0, "started": NOW - 3600, "finished": None, "variables": {},
        **state,
    }  # fmt: skip


def healthy():
    """Return the evidence of a healthy site."""
    server = {
        "clock": {"server": NOW, "control": NOW - 1},
        "services": {
            name: {"installed": True, "active": "active", "result": "success"} for name in ("nginx", "docker")
        },
        "nginx_test": {"ok": True, "error": ""},
        "nginx_config": {
            "server_found": True, "server_names": ["www.example.com"], "listen": ["443 ssl", "80"],
            "upgrade_map": "$connection_upgrade", "websocket_location": location(EXPECTED["websocket_path"]),
            "root_location": location("/"), "upstreams": {"screen-flow": [EXPECTED["upstream"]]},
            "certificate": "/etc/ssl/one.pem", "certificate_key": "/etc/ssl/one.key",
            "client_certificate": "", "verify_client": "off", "redirects_http": False,
            "worker_connections": 4096,
        },
        "nginx_loaded": {"workers": 2, "loaded": NOW - 60, "changed": [], "newest": None, "refusal": ""},
        "limits": {"memory": True, "pids": True},
        "reboot": {"required": False, "packages": [], "running": "6.12.57", "newest": "6.12.57"},
        "listening": ["0.0.0.0:443", "0.0.0.0:80", "127.0.0.1:8000"],
        "addresses": ["203.0.113.7"],
        "certificate": {
            "file": "/etc/ssl/one.pem", "not_before": NOW - 9e6, "not_after": NOW + 9e6,
            "names": ["www.example.com"], "issuer": "CN=www.example.com", "self_signed": True,
            "key_matches": True,
            "fingerprint": "ab", "served": "ab",
        },
        "containers": {
            "api": container(variables={"APP_HEARTBEAT_SECONDS": "30"}),
            "worker": container(),
            "redis": container(),
            "search": container(),
        },
        "deploying": [],
        "upstream": [{"server": EXPECTED["upstream"], "status": 200, "error": ""}],
        "refused": {},
        "ready": {"healthz": 200, "readyz": 200, "redis_code": None, "sign_in": None, "storage": "ok"},
        "probes": {
            name: probed(name) for name in ("api", "nginx port 80", "nginx port 443")
        },
        "redis": {
            "ping": "PONG", "code": None, "write_code": None,
            "info": {
                "used_memory": "10", "maxmemory": "0", "maxmemory_policy": "noeviction",
                "aof_last_write_status": "ok",
            },
        },
        "worker": {"seen": 0.5, "waiting": 0},
        "canary": {
            "status": 202, "error": "", "received_ms": 20, "processed_ms": 300, "done_unreported": False,
        },
        "disk": [{"path": "/", "size": 10**11, "free": 5 * 10**10, "inodes_free": 0.9}],
        "files": {"nginx": {"open": 20, "limit": 8192}, "api": {"open": 20, "limit": 20000}},
        "firewall": {"nftables": []},
        "nginx_log": {"lines": [], "age": 5.0},
        "app_logs": {},
        "sockets": 4,
    }  # fmt: skip
    edge = {
        "resolved": ["104.16.0.1"],
        "probes": {
            "edge": probed("edge"),
            "origin 203.0.113.7 port 443": failing("origin 203.0.113.7 port 443", "tcp"),
        },
        "page": {
            "status": 200, "location": "", "server": "cloudflare", "hsts": False, "scripts": [], "unread": [],
            "sockets": True, "insecure": [], "rocket_loader": False, "date": NOW, "asked": NOW,
        },
        "aliases": {},
        "socket_path": {"status": 404, "cache": "DYNAMIC"},
        "token": {"ok": True, "status": "active"},
        "settings": {"ssl": "full", "websockets": "on", "rocket_loader": "off"},
        "dns": [{"type": "A", "name": "www.example.com", "content": "203.0.113.7", "proxied": True}],
        "rules": {"cache": [], "config": [], "compression": []},
        "origin_pulls": {"zone": False, "global": False},
    }  # fmt: skip
    return {
        "format": FORMAT,
        "expected": dict(EXPECTED),
        "server": {name: {"value": found} for name, found in server.items()},
        "edge": {name: {"value": found} for name, found in edge.items()},
    }


def change(document, path, found):
    """Set the value at a path such as server/redis/ping; a value of ... makes the datum missing."""
    place, name, *keys = path.split("/")
    if place == "expected":
        document[place][name] = found
        return
    if found is ...:
        document[place][name] = {"missing": "no answer within 6 s.", "reason": "deadline"}
        return
    target, last = document[place][name], "value"
    for key in keys:
        target, last = target[last], key
    target[last] = found
