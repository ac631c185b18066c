"""The guide's deployment checklist as a pure function of the evidence document: each line with its verdict.

A line is ok when its evidence is present and none of diagnose's rules for it finds a fault. Without the
evidence it has failed, because a site whose layers can't be examined is not verified; only a line that needs
a Cloudflare token, or a session for the probes, is then "not tried". A backend of the user's own has no line
for what only the reference backend and its page do. A warning names what the server lacks and the site works
without.

`document["verify"]` holds the data of modules site_listen and site_canary: `listened`, `canary`, `logged`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..evidence.document import missing, value
from .engine import Evidence
from .rules import RULES
from .rules.edge import alias_fault

OK, WARNING, FAILED, NOT_TRIED = "ok", "warning", "failed", "not tried"
LAYERS = ("edge", "nginx", "api", "page", "socket", "events")
HEARTBEAT_SLACK = 3.0  # seconds by which a heartbeat may be late
LEAST_TIMEOUT = 300  # seconds, from the guide


@dataclass(frozen=True)
class Line:
    """One line of the checklist with its verdict. `detail` is the evidence, or the cause, as a sentence."""

    layer: str
    name: str
    verdict: str
    detail: str


class Fault(Exception):
    """The evidence shows that a line does not hold; the text is the cause as a sentence."""


class Concern(Exception):
    """The evidence shows that a line holds only in part; the text is what is missing, as a sentence."""


@dataclass(frozen=True)
class Check:
    """How a line is checked: the evidence that it needs, the rules that fail it, and its detail when ok."""

    layer: str
    name: str
    needs: str
    rules: tuple[str, ...]
    describe: Callable[[Evidence], str]
    needs_token: bool = False
    needs_session: bool = False
    reference_only: bool = False


def _location(e: Evidence) -> Mapping[str, Any]:
    found = e["server.nginx_config.websocket_location"]
    if not found:
        raise Fault("nginx has no location for the WebSocket path.")
    return dict(found)


def _map(e: Evidence) -> str:
    location, name = _location(e), e["server.nginx_config.upgrade_map"]
    return f"map sets {name}; Connection {location['connection']}, HTTP/{location['http_version']}"


def _timeouts(e: Evidence) -> str:
    socket, rest = _location(e), e["server.nginx_config.root_location"] or {}
    short = [
        f"{where} {name.removesuffix('_timeout')} {location[name]} s"
        for where, location in ((e.expect("websocket_path"), socket), ("/", rest))
        for name in ("read_timeout", "send_timeout")
        if location.get(name) is not None and location[name] < LEAST_TIMEOUT
    ]
    if short:
        raise Fault(f"below {LEAST_TIMEOUT} s: {', '.join(short)}.")
    return f"WebSocket {socket['read_timeout']:g} s, the rest {rest.get('read_timeout', 0):g} s"


def _certificate(e: Evidence) -> str:
    days = (e["server.certificate.not_after"] - e["server.clock.server"]) / 86_400
    return f"for {', '.join(e['server.certificate.names'])}, {days:.0f} days left"


def _heartbeat(e: Evidence) -> str:
    seen, expected = e["verify.listened.heartbeat_seconds"], e.expect("heartbeat_seconds")
    if seen is None:
        raise Fault(e["verify.listened.ended"] or f"none arrived within {expected} s of silence.")
    if seen > expected + HEARTBEAT_SLACK:
        raise Fault(f"it arrived after {seen:g} s of silence; site_heartbeat_seconds is {expected:g}.")
    return f"seen after {seen:g} s of silence"


def _services(e: Evidence) -> str:
    return ", ".join(f"{name} {one['health']}" for name, one in sorted(e["server.containers"].items()))


def _limits(e: Evidence) -> str:
    limits = e["server.limits"]
    missing_ones = [name for name, is_enforced in sorted(limits.items()) if not is_enforced]
    if missing_ones:
        raise Concern(
            f"the server's kernel enforces no limit of {' and '.join(missing_ones)}, so one container can "
            "exhaust the server; enable these cgroup controllers (docker info names them)."
        )
    return f"the kernel enforces {' and '.join(sorted(limits))}"


def _logged(e: Evidence) -> str:
    lines = e["verify.logged"]
    if not lines:
        raise Fault("the api logged no WebSocket of the probe; app_stack_log_level must be INFO or DEBUG.")
    return str(lines[-1]).partition("|")[2].strip() or str(lines[-1])


def _wss(e: Evidence) -> str:
    page = e["edge.page"]
    if page["status"] != 200:
        raise Fault(f"the page returns HTTP {page['status']}.")
    if page["unread"]:
        raise Fault(f"scripts of the page could not be read: {', '.join(page['unread'])}.")
    return f"no ws:// in the page and its {len(page['scripts'])} scripts"


def _client(e: Evidence) -> str:
    if not e["edge.page.reconnects"]:
        raise Fault("no script of the page contains the client of frontend/utils/websocket.ts.")
    return "the page's script reconnects and resumes"


def _upgrade(e: Evidence) -> str:
    probe = e.probe("edge", "edge")
    if not probe or probe["status"] != 101:
        raise Fault(probe["error"] if probe else "it was not probed.")
    return f"101 after {probe['handshake_ms']:.0f} ms through {probe['server'] or probe['address']}"


def _pong(e: Evidence) -> str:
    probe = e.probe("edge", "edge")
    if not probe or not probe["ok"]:
        raise Fault(probe["error"] if probe else "it was not probed.")
    if probe["pong_ms"] is None:
        return f"closed with {probe['close_code']}, which is correct without a session"
    return f"pong after {probe['pong_ms']:.1f} ms"


def _canary(e: Evidence) -> str:
    canary, listened = e["verify.canary"], e["verify.listened"] or {}
    if canary["error"]:
        raise Fault(canary["error"])
    took, processed = listened.get("canary_ms"), listened.get("processed_ms")
    if took is None:
        why = e.document["verify"]["listened"].get("missing", "")
        raise Fault(f"a CV was uploaded, but its events were not received through the edge. {why}".strip())
    if processed is None:
        raise Fault(f"an uploaded CV's first event came after {took:.0f} ms, but it was not processed.")
    return f"received through the edge {took:.0f} ms after it was sent; CV processed in {processed:.0f} ms"


CHECKS = (
    Check(
        "edge",
        "Cloudflare WebSockets enabled",
        "edge.settings",
        ("websockets_off",),
        lambda e: f"websockets {e['edge.settings.websockets']}",
        True,
    ),
    Check(
        "edge",
        "Cloudflare SSL Full or Full (strict)",
        "edge.settings",
        ("ssl_mode", "strict_needs_certificate"),
        lambda e: f"ssl {e['edge.settings.ssl']}",
        True,
    ),
    Check(
        "edge",
        "Rocket Loader off",
        "edge.page",
        ("rocket_loader_on",),
        lambda e: "the page's scripts are unchanged",
    ),
    Check(
        "edge",
        "WebSocket path not cached",
        "edge.socket_path",
        ("websocket_path_cached",),
        lambda e: f"CF-Cache-Status {e['edge.socket_path.cache'] or 'not sent'}",
    ),
    Check(
        "nginx",
        "nginx runs what is on disk",
        "server.nginx_test",
        ("nginx_stopped", "nginx_configuration_invalid", "nginx_reload_refused", "nginx_not_reloaded"),
        lambda e: "nginx -t passes",
    ),
    Check(
        "nginx",
        "Upgrade map used",
        "server.nginx_config",
        ("upgrade_map_missing", "connection_hard_coded", "upgrade_not_passed", "http_1_0_upstream"),
        _map,
    ),
    Check(
        "nginx",
        "WebSocket location",
        "server.nginx_config",
        ("websocket_location_missing", "buffering_on", "wrong_upstream"),
        lambda e: f"{_location(e)['path']} to {_location(e)['proxy_pass']}, unbuffered",
    ),
    Check("nginx", "Timeouts at least 300 s", "server.nginx_config", ("websocket_timeout_short",), _timeouts),
    Check(
        "nginx",
        "TLS on 443",
        "server.certificate",
        ("no_tls", "certificate_expired", "certificate_other_name", "key_mismatch", "certificate_not_loaded"),
        _certificate,
    ),
    Check(
        "api",
        "Services healthy",
        "server.containers",
        (
            "docker_stopped",
            "redis_stopped",
            "redis_full",
            "redis_can_not_save",
            "redis_password",
            "redis_silent",
            "not_ready",
            "worker_stopped",
            "worker_silent",
            "extractor_down",
            "service_stopped",
            "api_stopped",
            "api_hangs",
            "api_on_other_port",
            "upstream_dead",
        ),
        _services,
    ),
    Check("api", "Limits of the containers", "server.limits", ("docker_stopped",), _limits),
    Check("api", "Heartbeat", "verify.listened", ("no_heartbeat",), _heartbeat, needs_session=True),
    Check(
        "api",
        "WebSocket connections logged",
        "verify.logged",
        (),
        _logged,
        needs_session=True,
        reference_only=True,
    ),
    Check("page", "wss:// for https", "edge.page", ("page_opens_ws",), _wss),
    Check("page", "Reconnecting WebSocket served", "edge.page", (), _client, reference_only=True),
    Check("socket", "101 from outside", "edge.probes", (), _upgrade),
    Check("socket", "ping and pong from outside", "edge.probes", (), _pong),
    Check(
        "events",
        "Event received through Cloudflare",
        "verify.canary",
        ("other_channel",),
        _canary,
        needs_session=True,
    ),
)


def _alias(name: str) -> Check:
    """Return the line of one alias."""

    def describe(e: Evidence) -> str:
        if fault := alias_fault(e, name):
            raise Fault(fault)
        return f"HTTP {e['edge.aliases'][name]['status']} to the site's own name, with path and query"

    return Check("edge", f"{name} redirects to the site", "edge.aliases", (), describe)


def judge(document: Mapping[str, Any], layers: Collection[str] = LAYERS) -> list[Line]:
    """Return the checklist's lines of these layers, in the guide's order."""
    evidence = Evidence(document)
    judges = {rule.name: rule.judge for rule in RULES}
    absent = missing(document) | {
        f"verify.{name}": datum["missing"]
        for name, datum in document.get("verify", {}).items()
        if "missing" in datum
    }

    def line(check: Check) -> Line:
        if check.needs_session and not evidence.expect("session"):
            return Line(check.layer, check.name, NOT_TRIED, "site_check_session is none.")
        if value(document, check.needs) is None:
            why = absent.get(check.needs) or "there is no evidence for it."
            return Line(check.layer, check.name, NOT_TRIED if check.needs_token else FAILED, why)
        try:
            for name in check.rules:
                if cause := judges[name](evidence):
                    raise Fault(cause)
            return Line(check.layer, check.name, OK, check.describe(evidence))
        except Concern as concern:
            return Line(check.layer, check.name, WARNING, str(concern))
        except Fault as fault:
            return Line(check.layer, check.name, FAILED, str(fault))

    own = not evidence.expect("reference_backend")
    checks = [check for check in CHECKS if not (own and check.reference_only)]
    checks += map(_alias, evidence.names[1:])
    checks.sort(key=lambda check: LAYERS.index(check.layer))
    return [line(check) for check in checks if check.layer in layers]


def table(lines: list[Line]) -> str:
    """Return the lines as an aligned table for a terminal."""
    marks = {FAILED: "FAILED"}
    rows = [("layer", "check", "verdict", "evidence")]
    rows += [(line.layer, line.name, marks.get(line.verdict, line.verdict), line.detail) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        for row in rows
    )
