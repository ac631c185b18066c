"""From evidence to findings: which layer is at fault, why, what to do, and the runbook's page for it.

`diagnose` is a pure function of the evidence document (see site_evidence). A rule looks at one cause and
returns a sentence when the evidence shows it, else None; its docstring says what goes wrong then. What is
missing from the document shows nothing. A rule for a *symptom* (a socket that does not get through) speaks
only when no cause was found that explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..evidence.document import missing, value

# Root causes first: what stands further up breaks what stands below it.
LAYERS = (
    "server", "redis", "worker", "api", "origin_certificate", "nginx", "origin_firewall", "edge", "page",
)  # fmt: skip
CLOCK_SLACK = 60  # seconds: sessions and certificates live with less
FULL = 0.02  # of a file system: below this there is no room
FEW_FILES = 0.95  # of the limit of open files
PROMPT = 1000  # milliseconds to open a socket to itself, for a machine with time
WORKER_SILENCE = 20  # seconds; a worker shows itself each second or so
FRESH = 10  # seconds after its start in which a container may have been seen half started
RELOAD_PATIENCE = 120  # seconds in which a run that wrote a file may still reload nginx


@dataclass(frozen=True)
class Finding:
    """One fault: the rule that found it, its layer, cause and remedy in sentences, the page."""

    rule: str
    layer: str
    cause: str
    remedy: str
    page: str
    is_symptom: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """The findings, root cause first; what could not be got; and what a second look has to judge."""

    findings: list[Finding]
    missing: dict[str, str]
    waiting: list[Finding] = field(default_factory=list)
    unsettled: str = ""


class Evidence:
    """The evidence document, to be asked by path; None for what is missing."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.expected: Mapping[str, Any] = document.get("expected", {})

    def __getitem__(self, path: str) -> Any:
        return value(self.document, path)

    def want(self, name: str) -> Any:
        """Return what the inventory expects, or None."""
        return self.expected.get(name)

    def container(self, name: str) -> Mapping[str, Any] | None:
        """Return the state of a service's container; None also when no state is known."""
        found: Mapping[str, Any] | None = (self["server.containers"] or {}).get(name)
        return found

    def runs(self, name: str) -> bool:
        """Tell whether a container is known to run."""
        container = self.container(name)
        return container is not None and container["state"] == "running"

    def probe(self, place: str, name: str) -> Mapping[str, Any]:
        """Return a probe's result, or an empty mapping."""
        found: Mapping[str, Any] = (self[f"{place}.probes"] or {}).get(name, {})
        return found

    def failed(self, place: str, name: str) -> Mapping[str, Any] | None:
        """Return the result of a probe that is known to have failed, else None."""
        found = self.probe(place, name)
        return found if found and not found["ok"] else None


Judge = Callable[[Evidence], str | None]


@dataclass(frozen=True)
class Rule:
    """A named rule. `explained_by` makes it a symptom: layers or rules whose findings silence it."""

    name: str
    layer: str
    page: str
    remedy: str
    judge: Judge
    explained_by: tuple[str, ...]
    is_symptom: bool
    deploys: bool


RULES: list[Rule] = []

NGINX_AGAIN = (
    "Run ansible-playbook site.yml --tags nginx: it writes the whole configuration, tests and reloads it."
)
STACK_AGAIN = "Run ansible-playbook site.yml --tags app_stack: it starts all services and waits for health."
EDGE_AGAIN = "Run ansible-playbook playbooks/edge.yml: it sets the zone as the inventory says."
CERTIFICATE_AGAIN = (
    "Run ansible-playbook site.yml --tags origin_certificate,nginx: it makes and loads the pair."
)


def rule(
    layer: str,
    page: str,
    remedy: str,
    *,
    explained_by: tuple[str, ...] = (),
    symptom: bool = False,
    deploys: bool = False,
) -> Callable[[Judge], Judge]:
    """Add a function to RULES under its own name. `deploys`: a deployment under way looks like this, too."""

    def add(judge: Judge) -> Judge:
        name = judge.__name__
        RULES.append(Rule(name, layer, page, remedy, judge, explained_by, symptom, deploys))
        return judge

    return add


# server: what everything stands on.


@rule("server", "server_is_full", "Free room: journalctl --vacuum-size=200M, docker system prune, old logs.")
def disk_full(e: Evidence) -> str | None:
    """A file system that the site writes to has no room: logs, uploads and Redis's file end there."""
    for disk in e["server.disk"] or []:
        if disk["size"] and disk["free"] / disk["size"] < FULL:
            return f"the file system of {disk['path']} is full: {disk['free'] // 2**20} MiB are free."
        if disk["inodes_free"] < FULL:
            return f"the file system of {disk['path']} has no room for another file: its inodes are used up."
    return None


@rule(
    "server",
    "server_is_full",
    "Raise nginx_worker_connections (nginx_worker_rlimit_nofile follows it) or app_stack_api_files and run "
    "site.yml; systemctl restart nginx helps at once.",
)
def out_of_files(e: Evidence) -> str | None:
    """Nginx or the api holds as many files or connections as it may; each connection is a file."""
    for name, files in (e["server.files"] or {}).items():
        if files["open"] >= FEW_FILES * files["limit"]:
            return f"{name} is out of files or connections: {files['open']} of {files['limit']} are open."
    return None


@rule(
    "server", "clock_is_wrong", "Let the server keep time: timedatectl set-ntp true, then timedatectl status."
)
def clock_skew(e: Evidence) -> str | None:
    """The server's clock differs from the control node's: sessions and certificates seem to have ended."""
    server, control = e["server.clock.server"], e["server.clock.control"]
    if server is None or control is None or abs(server - control) <= CLOCK_SLACK:
        return None
    way = "ahead of" if server > control else "behind"
    return f"the server's clock is {abs(server - control):.0f} s {way} the control node's."


@rule(
    "server",
    "site_is_down",
    "Start the engine: systemctl start docker, then journalctl -u docker says why it ended.",
)
def docker_stopped(e: Evidence) -> str | None:
    """Without the engine no container runs."""
    docker = e["server.services.docker"]
    if not docker or docker["active"] in ("active", "reloading", "activating"):
        return None
    return f"Docker Engine does not run ({docker['active']}, {docker['result']})."


# redis: where events and jobs pass.


def _stopped(e: Evidence, name: str) -> str | None:
    """Return the sentence for a container that does not run, or None."""
    containers = e["server.containers"]
    if containers is None or e.runs(name):
        return None
    container = containers.get(name)
    if container is None:
        return f"there is no container {name}."
    if container["state"] == "restarting":
        return f"{name} ends again and again (exit code {container['exit_code']})."
    memory = ", killed for want of memory" if container["out_of_memory"] else ""
    return f"{name} is stopped ({container['state']}, exit code {container['exit_code']}{memory})."


@rule("redis", "redis_is_down", STACK_AGAIN, explained_by=("docker_stopped",), deploys=True)
def redis_stopped(e: Evidence) -> str | None:
    """The container of Redis does not run."""
    return _stopped(e, "redis")


@rule(
    "redis",
    "redis_is_full",
    "Give Redis room: raise its maxmemory, or delete what is not the site's; no event is stored before that.",
)
def redis_full(e: Evidence) -> str | None:
    """Redis is at its memory limit and may not evict, so it refuses every write."""
    info = e["server.redis.info"] or {}
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    refused = "OOM command not allowed" in (e["server.canary.error"] or "")
    if refused or (limit and used >= limit and info.get("maxmemory_policy") == "noeviction"):
        return f"Redis is full: it uses {used} of {limit} bytes and refuses to store more."
    return None


@rule("redis", "redis_is_full", "Make room on the server's disk; then docker compose restart redis.")
def redis_can_not_save(e: Evidence) -> str | None:
    """Redis could not write its file, and then refuses every write."""
    status = e["server.redis.info.aof_last_write_status"]
    if status not in (None, "ok") or "MISCONF" in (e["server.canary.error"] or ""):
        return "Redis can't write its file to the disk, so it refuses to store events."
    return None


AUTH_SIGNS = ("WRONGPASS", "NOAUTH", "AuthenticationError", "NOPERM", "invalid username-password")


@rule(
    "redis",
    "redis_password_is_wrong",
    "Run ansible-playbook site.yml --tags app_stack: it gives Redis, api and worker the same password.",
    explained_by=("redis_stopped",),
)
def redis_password(e: Evidence) -> str | None:
    """Redis refuses the password that api or worker give."""
    said = {
        "api": str(e["server.ready.says"] or ""),
        "worker": str(e["server.canary.error"] or ""),
        "redis-cli": str(e["server.redis.ping"] or ""),
    }
    for name in ("api", "worker"):
        # The last words of a container are of now only while it is neither stopped nor healthy.
        container = e.container(name)
        if container and container["state"] != "exited" and container["health"] != "healthy":
            said[name] += " ".join(container["health_says"])
            said[name] += " ".join((e["server.app_logs"] or {}).get(name, [])[-5:])
    refused = [name for name, text in said.items() if any(sign in text for sign in AUTH_SIGNS)]
    return f"Redis refuses the password of {' and '.join(refused)}." if refused else None


@rule(
    "redis",
    "redis_is_down",
    "docker compose logs redis says why; docker compose restart redis helps for now.",
    explained_by=("redis_stopped", "redis_password", "docker_stopped"),
    deploys=True,
)
def redis_silent(e: Evidence) -> str | None:
    """The container runs, but Redis does not answer PING."""
    if not e.runs("redis"):
        return None
    answer = e["server.redis.ping"]
    if answer in ("PONG", None):
        return None
    return f"Redis runs, but says {answer!r} to PING." if answer else "Redis runs, but does not answer PING."


# worker: reads the CVs and publishes each step.


@rule("worker", "nothing_is_processed", STACK_AGAIN, explained_by=("docker_stopped",), deploys=True)
def worker_stopped(e: Evidence) -> str | None:
    """The worker's container does not run, so uploads wait."""
    sentence = _stopped(e, "worker")
    waiting = e["server.worker.waiting"]
    return f"{sentence[:-1]}; {waiting} jobs wait." if sentence and waiting else sentence


@rule(
    "worker",
    "nothing_is_processed",
    "docker compose logs worker says why; docker compose restart worker helps for now.",
    explained_by=("redis", "worker_stopped", "docker_stopped"),
    deploys=True,
)
def worker_silent(e: Evidence) -> str | None:
    """The worker's container runs, but Redis has not heard from it."""
    worker = e["server.worker"]
    if not e.runs("worker") or worker is None:
        return None
    if worker["seen"] is None or worker["seen"] > WORKER_SILENCE:
        since = "never" if worker["seen"] is None else f"{worker['seen']:.0f} s ago"
        return f"the worker runs, but was heard of {since}; {worker['waiting']} jobs wait."
    return None


@rule(
    "worker",
    "changes_only_after_refresh",
    "Let worker and api run the same version: ansible-playbook site.yml --tags app_stack. A backend of "
    "your own publishes on user:ID:events (docs/contract.md).",
)
def other_channel(e: Evidence) -> str | None:
    """Events go to a channel to which no socket listens."""
    published, listened = e["server.canary.published_on"], e["server.canary.listened_to"]
    if not published or not listened or published in listened:
        return None
    return f"the worker publishes events on {published}, but the api listens to {', '.join(listened)}."


# api: serves the sockets.


@rule("api", "site_is_down", STACK_AGAIN, explained_by=("docker_stopped",), deploys=True)
def api_stopped(e: Evidence) -> str | None:
    """The api's container does not run."""
    return _stopped(e, "api")


@rule(
    "api",
    "site_is_down",
    "docker compose restart api helps for now; docker compose logs api before it says why.",
    deploys=True,
)
def api_hangs(e: Evidence) -> str | None:
    """The api's port takes connections, and nothing ever comes back."""
    failed = e.failed("server", "api")
    if e.runs("api") and failed and failed["stage"] == "http" and failed["status"] is None:
        return f"the api hangs: {failed['error']}"
    return None


@rule(
    "api",
    "closes_after_100_seconds",
    "Set site_heartbeat_seconds below site_edge_idle_seconds and run site.yml --tags app_stack.",
)
def no_heartbeat(e: Evidence) -> str | None:
    """The api's heartbeat is not the inventory's, so an idle socket may be cut before it."""
    variables = (e.container("api") or {}).get("variables")
    heartbeat, wanted = (variables or {}).get("APP_HEARTBEAT_SECONDS"), e.want("heartbeat_seconds")
    if variables is None or wanted is None or heartbeat is None:
        return None
    if float(heartbeat) == float(wanted):
        return None
    return (
        f"the api sends a heartbeat after {float(heartbeat):g} s of silence instead of {float(wanted):g}; "
        f"the edge cuts after {e.want('edge_idle_seconds'):g} s."
    )


@rule(
    "api",
    "site_is_down",
    "Run ansible-playbook site.yml --tags app_stack,nginx: both then use site_api_port.",
    explained_by=("api_stopped", "docker_stopped"),
    deploys=True,
)
def api_on_other_port(e: Evidence) -> str | None:
    """The api runs, but its port on the server is not the one that nginx is to use."""
    port, listening = e.want("api_port"), e["server.listening"]
    if not e.runs("api") or listening is None or any(each.endswith(f":{port}") for each in listening):
        return None
    return f"the api runs, but nothing listens on its port {port}."


@rule(
    "api",
    "upstream_is_dead",
    "Run ansible-playbook site.yml --tags app_stack: it tries that way and makes the api anew if it is dead.",
    explained_by=("docker_stopped", "api_stopped", "api_hangs", "api_on_other_port", "wrong_upstream"),
    deploys=True,
)
def upstream_dead(e: Evidence) -> str | None:
    """The api runs, but gives no answer at the address or the socket that nginx passes requests to."""
    dead = [each for each in e["server.upstream"] or [] if each["status"] is None]
    if not e.runs("api") or not dead:
        return None
    return f"the api runs, but nginx does not reach it at {dead[0]['server']}: {dead[0]['error']}."


@rule(
    "api",
    "changes_only_after_refresh",
    "docker compose logs api says why; the probe needs site_check_origin in app_stack_allowed_origins and a "
    "session that the api accepts (site_check_session).",
    explained_by=("server", "redis", "api"),
    symptom=True,
    deploys=True,
)
def api_socket(e: Evidence) -> str | None:
    """A socket straight to the api does not answer ping with pong, for a reason that no other rule knows."""
    failed = e.failed("server", "api")
    return f"a socket to the api fails: {failed['error']}" if failed else None


@rule(
    "api",
    "changes_only_after_refresh",
    "docker compose logs api worker says why; docker compose restart api helps for now.",
    explained_by=("server", "redis", "api", "other_channel"),
    symptom=True,
    deploys=True,
)
def canary_lost(e: Evidence) -> str | None:
    """An event was published where the api listens, and did not reach its socket."""
    canary = e["server.canary"]
    if not canary or canary["received_ms"] is not None:
        return None
    if canary["error"]:
        return f"the worker can't publish an event: {canary['error']}"
    return "an event that the worker published did not reach a socket of the api."


# origin_certificate: the origin's TLS identity.


@rule("origin_certificate", "ssl_error", CERTIFICATE_AGAIN)
def certificate_expired(e: Evidence) -> str | None:
    """The certificate's time is over, or has not come; Full (strict) refuses it, and the visitor sees 526."""
    certificate, now = e["server.certificate"], e["server.clock.control"]
    if not certificate or now is None:
        return None
    if certificate["not_after"] < now:
        days = (now - certificate["not_after"]) / 86400
        return f"the certificate {certificate['file']} expired {days:.0f} days ago."
    if certificate["not_before"] > now + CLOCK_SLACK:
        return f"the certificate {certificate['file']} is not valid yet."
    return None


@rule("origin_certificate", "ssl_error", CERTIFICATE_AGAIN)
def certificate_other_name(e: Evidence) -> str | None:
    """The certificate is for another name than the site's."""
    certificate, host = e["server.certificate"], e.want("host")
    if not certificate or not host or any(_covers(name, host) for name in certificate["names"]):
        return None
    names = ", ".join(certificate["names"]) or "no name"
    return f"the certificate {certificate['file']} is for {names}, not for {host}."


def _covers(name: str, host: str) -> bool:
    """Tell whether a certificate's name covers a host: itself, or one label for the asterisk."""
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


@rule("origin_certificate", "ssl_error", CERTIFICATE_AGAIN)
def key_mismatch(e: Evidence) -> str | None:
    """Certificate and private key are no pair: nginx refuses to start or to reload with them."""
    certificate = e["server.certificate"]
    if not certificate or certificate["key_fits"]:
        return None
    return f"the private key does not belong to the certificate {certificate['file']}."


@rule(
    "origin_certificate",
    "ssl_error",
    "Load it: nginx -t && systemctl reload nginx.",
    explained_by=("key_mismatch",),
)
def certificate_not_loaded(e: Evidence) -> str | None:
    """Nginx shows another certificate than the one on disk: it was not reloaded."""
    certificate = e["server.certificate"]
    if not certificate or not certificate["shown"] or certificate["shown"] == certificate["fingerprint"]:
        return None
    return f"nginx shows another certificate than {certificate['file']}: it was not reloaded since."


# nginx: passes the upgrade on.


@rule(
    "nginx", "site_is_down", "On the server, nginx -t says whether it may start; then systemctl start nginx."
)
def nginx_stopped(e: Evidence) -> str | None:
    """Nginx does not run."""
    nginx = e["server.services.nginx"]
    if not nginx or nginx["active"] in ("active", "reloading"):
        return None
    return f"nginx does not run ({nginx['active']}, {nginx['result']})."


@rule("nginx", "nginx_configuration_is_wrong", NGINX_AGAIN, explained_by=("key_mismatch", "disk_full"))
def nginx_configuration_invalid(e: Evidence) -> str | None:
    """The configuration on disk does not pass nginx's own test; a running nginx keeps the old one."""
    test = e["server.nginx_test"]
    if not test or test["ok"]:
        return None
    runs = (e["server.services.nginx"] or {}).get("active") == "active"
    still = " nginx still runs with the old one, and would not start again." if runs else ""
    why = next(
        (line.partition("[emerg] ")[2] for line in test["says"] if "[emerg]" in line), " ".join(test["says"])
    )
    return f"nginx's configuration on disk is invalid: {why}.{still}"


@rule(
    "nginx",
    "nginx_configuration_is_wrong",
    "Load it: nginx -t && systemctl reload nginx.",
    explained_by=("key_mismatch", "nginx_configuration_invalid", "nginx_stopped"),
)
def nginx_not_reloaded(e: Evidence) -> str | None:
    """Files of the configuration are newer than what nginx runs with."""
    loaded, now = e["server.nginx_loaded"], e["server.clock.server"]
    if not loaded or not loaded["changed"] or now is None or now - loaded["newest"] < RELOAD_PATIENCE:
        return None
    return f"nginx was not reloaded since {', '.join(loaded['changed'])} changed."


def _socket_location(e: Evidence) -> Mapping[str, Any] | None:
    """Return the location that sockets pass through: their own, or the root."""
    config: Mapping[str, Any] = e["server.nginx_config"] or {}
    return config.get("websocket_location") or config.get("root_location")


@rule("nginx", "bad_request_400", NGINX_AGAIN)
def upgrade_map_missing(e: Evidence) -> str | None:
    """Without the map from Upgrade to Connection the upgrade is lost, and the api sees a plain GET."""
    config = e["server.nginx_config"]
    if not config or config["upgrade_map"]:
        return None
    return "nginx has no map of $http_upgrade to $connection_upgrade, so the upgrade is lost before the api."


@rule("nginx", "bad_request_400", NGINX_AGAIN)
def connection_hard_coded(e: Evidence) -> str | None:
    """`Connection: upgrade` on every request, also where the visitor asked for none."""
    for name in ("websocket_location", "root_location"):
        location = e[f"server.nginx_config.{name}"]
        if location and location["connection"].lower() == "upgrade":
            return (
                f"the location {location['path']} sends Connection: upgrade with every request, "
                "instead of $connection_upgrade."
            )
    return None


@rule("nginx", "bad_request_400", NGINX_AGAIN, explained_by=("upgrade_map_missing",))
def upgrade_not_passed(e: Evidence) -> str | None:
    """The location for sockets does not pass the headers Upgrade and Connection on."""
    location = _socket_location(e)
    if not location or (location["upgrade"] and location["connection"].lower() != "close"):
        return None
    return f"the location {location['path']} does not pass Upgrade and Connection on to the api."


@rule("nginx", "bad_request_400", NGINX_AGAIN)
def http_1_0_upstream(e: Evidence) -> str | None:
    """HTTP/1.0, nginx's default towards the api, knows no upgrade."""
    location = _socket_location(e)
    if not location or location["http_version"] != "1.0":
        return None
    return f"the location {location['path']} speaks HTTP/1.0 to the api, which has no upgrade."


@rule("nginx", "closes_after_100_seconds", NGINX_AGAIN)
def websocket_location_missing(e: Evidence) -> str | None:
    """Sockets pass through the location of ordinary requests, with its short timeouts."""
    config = e["server.nginx_config"]
    if not config or not config["server_found"] or config["websocket_location"]:
        return None
    return f"nginx has no location {e.want('websocket_path')}: sockets get the timeouts of ordinary requests."


@rule("nginx", "closes_after_100_seconds", NGINX_AGAIN)
def websocket_timeout_short(e: Evidence) -> str | None:
    """Nginx cuts sockets that the edge would still keep."""
    location, idle = e["server.nginx_config.websocket_location"], e.want("edge_idle_seconds")
    if not location or idle is None or location["read_timeout"] is None or location["read_timeout"] > idle:
        return None
    return f"nginx cuts a socket after {location['read_timeout']:g} s of silence (proxy_read_timeout)."


@rule("nginx", "changes_only_after_refresh", NGINX_AGAIN)
def buffering_on(e: Evidence) -> str | None:
    """What the api sends waits in a buffer, or comes from a cache."""
    location = e["server.nginx_config.websocket_location"]
    if not location:
        return None
    on = [name for name in ("buffering", "cache") if location[name]]
    return f"proxy_{' and proxy_'.join(on)} is on in the location {location['path']}." if on else None


@rule("nginx", "site_is_down", NGINX_AGAIN)
def wrong_upstream(e: Evidence) -> str | None:
    """Nginx passes requests to a port or a unix socket on which the api does not listen."""
    location, wanted = _socket_location(e), e.want("upstream")
    if not location or not location["proxy_pass"] or not wanted:
        return None
    authority = urlsplit(location["proxy_pass"]).netloc
    servers = (e["server.nginx_config.upstreams"] or {}).get(authority, [authority])
    # A host may be written in more than one way; the port or the path may not.
    if any(server.endswith(f":{wanted.rpartition(':')[2]}") for server in servers):
        return None
    return f"nginx passes sockets to {', '.join(servers)}, but the api listens on {wanted}."


@rule("nginx", "ssl_error", NGINX_AGAIN, explained_by=("nginx_stopped",))
def no_tls(e: Evidence) -> str | None:
    """Nothing listens on 443, where Cloudflare's Full and Full (strict) connect."""
    port, listening = e.want("https_port"), e["server.listening"]
    if port is None or listening is None or any(each.endswith(f":{port}") for each in listening):
        return None
    return f"nothing listens on port {port}, where Cloudflare connects."


@rule(
    "nginx",
    "changes_only_after_refresh",
    f"The last lines of /var/log/nginx/error.log say why. {NGINX_AGAIN}",
    explained_by=("server", "redis", "api", "origin_certificate", "nginx"),
    symptom=True,
    deploys=True,
)
def nginx_socket(e: Evidence) -> str | None:
    """A socket through nginx fails although the api is well, for a reason that no other rule knows."""
    for name, probe in (e["server.probes"] or {}).items():
        if name.startswith("nginx") and not probe["ok"] and not _redirects(e, probe):
            return f"a socket through {name} fails: {probe['error']}"
    return None


def _redirects(e: Evidence, probe: Mapping[str, Any]) -> bool:
    """Tell whether port 80 sends everybody to https, as it may."""
    return probe["status"] in (301, 302, 307, 308) and probe["url"].startswith("ws://")


# origin_firewall: only Cloudflare comes in.


@rule(
    "origin_firewall",
    "firewall",
    "Run ansible-playbook site.yml --tags origin_firewall: it admits Cloudflare's present ranges.",
    explained_by=(
        "api_hangs",
        "nginx_stopped",
        "no_tls",
        "dns_other_address",
        "dns_missing",
        "out_of_files",
        "docker_stopped",
    ),
)
def firewall_too_tight(e: Evidence) -> str | None:
    """Cloudflare gets no connection to a server whose nginx answers on the server itself."""
    edge, inside = e.failed("edge", "edge"), e.probe("server", f"nginx port {e.want('https_port')}")
    answered = inside.get("stage") in ("http", "pong") and not inside.get("error", "").startswith("not tried")
    if not edge or not answered:
        return None
    if edge["status"] in (521, 522, 523):
        return f"Cloudflare does not reach the server (HTTP {edge['status']}), though nginx answers there."
    # Cloudflare says 522 only after a time that is longer than ours. A slow machine looks alike: so nginx has
    # to answer at once inside, and the page has to be waited for in vain as well.
    waited = "timed out" in e.document["edge"].get("page", {}).get("missing", "")
    prompt = inside["ok"] and (inside["handshake_ms"] or PROMPT) < PROMPT
    if edge["status"] is None and edge["stage"] == "http" and waited and prompt:
        return "Cloudflare waits for the server in vain, though nginx answers there."
    return None


@rule(
    "origin_firewall",
    "firewall",
    "Run ansible-playbook site.yml --tags origin_firewall: only Cloudflare's ranges come in on 80 and 443.",
)
def firewall_too_loose(e: Evidence) -> str | None:
    """Somebody who is not Cloudflare gets a connection to the origin, past all that the edge does."""
    if not e.want("edge_only"):
        return None
    open_ = [
        name for name, probe in (e["edge.probes"] or {}).items() if name.startswith("origin") and probe["ok"]
    ]
    if not open_:
        return None
    where = ", ".join(e.probe("edge", name)["address"] for name in open_)
    return f"the origin answers the control node, which is not Cloudflare, at {where}."


# edge: Cloudflare's zone.


@rule(
    "edge",
    "api_token",
    "Make a new token at dash.cloudflare.com/profile/api-tokens and put it into the vault.",
)
def token_refused(e: Evidence) -> str | None:
    """Cloudflare's API does not take the token, so the zone can be neither read nor set."""
    token = e["edge.token"]
    if not token or token["ok"] or token["status"] == "unknown":
        return None
    if token["status"] in ("expired", "disabled"):
        return f"the API token is {token['status']}."
    return "Cloudflare does not know the API token."


@rule("edge", "edge_settings", EDGE_AGAIN)
def websockets_off(e: Evidence) -> str | None:
    """The zone's switch WebSockets is off: upgrades reach the origin as plain requests."""
    return "WebSockets are off in the zone." if e["edge.settings.websockets"] == "off" else None


@rule("edge", "ssl_error", EDGE_AGAIN)
def ssl_mode(e: Evidence) -> str | None:
    """Off has no https for visitors; Flexible is plain HTTP to the origin, and loops where that redirects."""
    mode = e["edge.settings.ssl"]
    if mode == "off":
        return "SSL is off in the zone: a page over https is sent away, and wss:// with it."
    if mode == "flexible":
        loops = e["server.nginx_config.redirects_http"] or _loops(e)
        return "SSL is Flexible in the zone: Cloudflare speaks plain HTTP to the origin" + (
            ", which redirects to https without end." if loops else "."
        )
    return None


def _loops(e: Evidence) -> bool:
    """Tell whether the page redirects to itself."""
    location, site = e["edge.page.location"], e.want("site_url")
    return bool(location and site) and urlsplit(location).hostname == urlsplit(site).hostname


@rule(
    "edge",
    "ssl_error",
    "Give the origin a certificate that strict accepts (origin_certificate_source), or set full.",
)
def strict_needs_certificate(e: Evidence) -> str | None:
    """Full (strict) wants a certificate of a public authority or of Origin CA."""
    certificate = e["server.certificate"]
    if e["edge.settings.ssl"] != "strict" or not certificate or not certificate["self_signed"]:
        return None
    return f"SSL is Full (strict) in the zone, but {certificate['file']} is self-signed."


@rule("edge", "edge_settings", EDGE_AGAIN)
def rocket_loader_on(e: Evidence) -> str | None:
    """Rocket Loader rewrites the page's scripts and delays what opens the socket."""
    page = e["edge.page"]
    seen = page["rocket_loader"] if page and page["status"] == 200 else None
    if seen or (seen is None and e["edge.settings.rocket_loader"] == "on"):
        return "Rocket Loader is on: it rewrites the page's scripts."
    return None


CACHED = ("HIT", "MISS", "EXPIRED", "STALE", "REVALIDATED", "UPDATING")


@rule("edge", "edge_settings", EDGE_AGAIN)
def websocket_path_cached(e: Evidence) -> str | None:
    """The edge treats what lies below the WebSocket path as cacheable."""
    path, cache = e.want("websocket_path"), e["edge.socket_path.cache"]
    if cache in CACHED:
        return f"the edge caches {path} (CF-Cache-Status: {cache})."
    return None


@rule("edge", "dns_record", EDGE_AGAIN)
def dns_missing(e: Evidence) -> str | None:
    """The zone has no record for the site's name."""
    return f"the zone has no DNS record for {e.want('host')}." if e["edge.dns"] == [] else None


@rule("edge", "dns_record", "Set the record to proxied (the orange cloud) in the zone.")
def dns_not_proxied(e: Evidence) -> str | None:
    """The record leads visitors past Cloudflare, to the origin itself."""
    grey = [record for record in e["edge.dns"] or [] if not record["proxied"]]
    return f"the DNS record of {e.want('host')} is not proxied: {grey[0]['content']}." if grey else None


@rule(
    "edge",
    "dns_record",
    "Set the record to the server's address, or name it in site_check_origin_addresses.",
)
def dns_other_address(e: Evidence) -> str | None:
    """The record leads Cloudflare to another machine."""
    own = set(e.want("origin_addresses") or e["server.addresses"] or [])
    records = [record for record in e["edge.dns"] or [] if record["type"] in ("A", "AAAA")]
    away = [record["content"] for record in records if record["content"] not in own]
    if not own or not away:
        return None
    server = ", ".join(sorted(own))
    return f"the DNS record of {e.want('host')} is {', '.join(away)}, but the server is {server}."


@rule(
    "edge",
    "authenticated_origin_pulls",
    "Run ansible-playbook site.yml --tags authenticated_origin_pulls,nginx: it sets up both ends.",
)
def origin_pulls_one_end(e: Evidence) -> str | None:
    """Authenticated Origin Pulls need both ends: a certificate at Cloudflare, and an nginx that asks."""
    pulls, verify = e["edge.origin_pulls"], e["server.nginx_config.verify_client"]
    if not pulls or verify is None:
        return None
    edge = pulls["zone"] or pulls["global"]
    if verify == "required" and not edge:
        return (
            "nginx wants Cloudflare's client certificate, but Authenticated Origin Pulls are off in the zone."
        )
    if verify == "off" and edge:
        return "Authenticated Origin Pulls are on in the zone, but nginx does not ask for the certificate."
    # Optional is the state between: nobody is refused.
    return None


@rule(
    "edge",
    "changes_only_after_refresh",
    f"The HTTP status says whose fault it is (52x: the way to the origin). {EDGE_AGAIN}",
    explained_by=("server", "redis", "api", "nginx", "origin_certificate", "origin_firewall", "edge"),
    symptom=True,
    deploys=True,
)
def edge_socket(e: Evidence) -> str | None:
    """A socket through Cloudflare fails though the origin is well, for a reason that no rule knows."""
    failed = e.failed("edge", "edge")
    return f"a socket through the edge fails: {failed['error']}" if failed else None


# page: what the browser runs.


@rule(
    "page",
    "ssl_error",
    "Let the page take its scheme from its own address, as frontend/utils/websocket.ts does.",
)
def page_opens_ws(e: Evidence) -> str | None:
    """A page that came over https may not open ws://; browsers refuse it."""
    found, site = e["edge.page.insecure"], e.want("site_url")
    if not found or not str(site).startswith("https:"):
        return None
    return f"the page opens a socket without TLS: {found[0]}."


def settled(e: Evidence, again: bool) -> str:
    """Return why the stack is not at rest, as a sentence; empty when it is.

    The first look (`again` false) also counts a container that has just become healthy: a probe may have come
    before it.
    """
    commands = e["server.deploying"]
    if commands:
        return f"the stack is being changed at this moment ({commands[0]})."
    now = e["server.clock.server"] or 0.0
    for name, container in (e["server.containers"] or {}).items():
        if container["restarts"]:
            continue  # it ends again and again, which is a fault
        if container["state"] == "created" or (container["state"], container["health"]) == (
            "running",
            "starting",
        ):
            return f"{name} is starting."
        if not again and container["state"] == "running" and now - (container["started"] or 0.0) < FRESH:
            return f"{name} started {now - container['started']:.0f} s ago."
    return ""


def diagnose(document: Mapping[str, Any], again: bool = False) -> Diagnosis:
    """Return the findings that the evidence shows, root cause first.

    While the stack is not at rest, what a deployment also looks like is no finding but `waiting`: look again.
    So is a symptom without a cause in the first look.
    """
    evidence = Evidence(document)
    shown = {each.name: sentence for each in RULES if (sentence := each.judge(evidence))}
    causes = {each.name: each for each in RULES if each.name in shown}

    def explained(one: Rule) -> bool:
        others: Collection[Rule] = [
            other for other in causes.values() if other is not one and not other.is_symptom
        ]
        return any(other.name in one.explained_by or other.layer in one.explained_by for other in others)

    standing = [each for each in causes.values() if not explained(each)]
    # Of symptoms the innermost is told: those further out lead through it.
    symptoms = [each for each in standing if each.is_symptom]
    standing = [each for each in standing if not each.is_symptom or each is symptoms[0]]
    standing.sort(key=lambda each: (LAYERS.index(each.layer), each.is_symptom))
    why = settled(evidence, again)
    if not why and not again and standing and all(each.is_symptom for each in standing):
        why = "a socket failed for no cause that is known, and may have failed just once."
    found = [
        (each, Finding(each.name, each.layer, shown[each.name], each.remedy, each.page, each.is_symptom))
        for each in standing
    ]
    return Diagnosis(
        findings=[finding for each, finding in found if not (why and each.deploys)],
        missing=missing(document),
        waiting=[finding for each, finding in found if why and each.deploys],
        unsettled=why,
    )


def say(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as text for a terminal."""
    lines: list[str] = []
    if diagnosis.findings:
        first, *others = diagnosis.findings
        lines.append(f"The first broken layer is {first.layer}: {first.cause}")
        lines += [f"  Do:   {first.remedy}", f"  Page: docs/runbook/{first.page}.md"]
        for finding in others:
            lines += ["", f"Also {finding.layer}: {finding.cause}"]
            lines += [f"  Do:   {finding.remedy}", f"  Page: docs/runbook/{finding.page}.md"]
    elif not diagnosis.waiting:
        lines.append("No fault was found." if diagnosis.missing else "Every layer is healthy.")
    if diagnosis.waiting:
        lines += ["", f"Not judged, because {diagnosis.unsettled} Diagnose again when that has ended:"]
        lines += [f"  {finding.layer}: {finding.cause}" for finding in diagnosis.waiting]
    if diagnosis.missing:
        lines += ["", "Could not be got, so nothing is said of it:"]
        lines += [f"  {name}: {why}" for name, why in sorted(diagnosis.missing.items())]
    return "\n".join(lines).strip()


def as_record(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis for machines."""
    return {"healthy": not diagnosis.findings, **asdict(diagnosis)}
