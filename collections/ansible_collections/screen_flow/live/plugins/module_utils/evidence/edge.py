"""What is known of the site from outside: its zone, edge and page. Asked all at once; only reads."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..cloudflare.client import Call, CloudflareApi, CloudflareFailure, Reason
from ..probe.websocket import Result as Probed
from ..probe.websocket import StageError, Target, connect, probe, read_target, resolve, start_tls
from .document import Datum, Deadline, Missing, gather

SETTINGS = (
    "ssl", "websockets", "rocket_loader", "always_use_https", "tls_client_auth", "min_tls_version",
    "development_mode", "security_level",
)  # fmt: skip
# Cloudflare's names for the places where rules stand, and ours.
PHASES = {
    "cache": "http_request_cache_settings",
    "config": "http_config_settings",
    "compression": "http_response_compression",
}
RECONNECTS = ("[WebSocket] Disconnected", "last_event_id")
SCRIPTS = 6  # of the page that are read
BODY = 3_000_000  # bytes of a page or script that are read
# A socket's address without TLS, as code writes it: "ws://host", `ws://${host}`, 'ws://' + host.
INSECURE = re.compile(r"""["'`]ws://(?!localhost|127\.0\.0\.1)[^"'`\s]{0,80}["'`]?""")


@dataclass(frozen=True)
class Options:
    """What is asked from outside: the options of module site_evidence_edge. Times in seconds."""

    url: str
    websocket_path: str
    targets: list[dict[str, Any]]
    address: str
    port: int
    ca_file: str | None
    api_token: str
    api_base_url: str
    zone: str
    timeout: float
    deadline: float


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, its body cut to BODY bytes."""

    status: int
    headers: Mapping[str, str]
    body: str


def gather_edge(options: Options) -> dict[str, Datum]:
    """Return the edge's part of the evidence document, within the deadline."""
    deadline = Deadline(options.deadline)
    found = gather(
        {
            "resolved": lambda: resolved(options),
            "probes": lambda: probes(options),
            "page": lambda: page(options),
            "socket_path": lambda: socket_path(options),
            "zone": lambda: zone(options, deadline),
        },
        deadline,
    )
    # The zone's own data depend on its id, but stand beside it in the document.
    inner = found["zone"].pop("value", None)
    if inner is None:
        why = found.pop("zone")
        return {**found, **dict.fromkeys(("token", "settings", "dns", "rules", "origin_pulls"), why)}
    del found["zone"]
    return {**found, **inner}


def resolved(options: Options) -> list[str]:
    """Return the addresses that visitors are led to."""
    host = urlsplit(options.url).hostname or ""
    try:
        found = socket.getaddrinfo(options.address or host, options.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Missing(f"the name {host} has no address: {error}.") from error
    return sorted({str(address[0]) for *_, address in found})


def probes(options: Options) -> dict[str, dict[str, Any]]:
    """Return what module site_probe says of each target, by name."""
    targets = [read_target(values, options.timeout) for values in options.targets]
    return {result.name: asdict(result) for result in probe(targets)}


def fetch(options: Options, url: str) -> Answer:
    """Return what the edge answers to a visitor's GET; raises Missing."""
    parts = urlsplit(url)
    target = Target(
        name="page", url=url, secure=parts.scheme == "https", is_websocket=False, host=parts.hostname or "",
        address=options.address or parts.hostname or "", port=options.port, until="http", verify=True,
        ca_file=options.ca_file, origin=None, cookie=None, healthy_close_codes=(), limit=options.timeout,
    )  # fmt: skip
    end = time.monotonic() + options.timeout
    result = Probed("page", url)
    try:
        connection = connect(resolve(target), result, end)
        with connection:
            connection.settimeout(options.timeout)
            client = http.client.HTTPConnection(target.host)
            client.sock = start_tls(connection, target, result.address) if target.secure else connection
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            client.request("GET", path, headers={"Host": parts.netloc, "Connection": "close"})
            answer = client.getresponse()
            headers = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, headers, answer.read(BODY).decode(errors="replace"))
    except StageError as error:
        raise Missing(str(error)) from error
    except (TimeoutError, OSError, http.client.HTTPException) as error:
        raise Missing(f"{url} gave no answer: {error or type(error).__name__}.") from error


def page(options: Options) -> dict[str, Any]:
    """Return what a browser would find in the page: its scripts, sockets without TLS, Rocket Loader."""
    url = options.url + "/"
    asked = time.time()
    answer = fetch(options, url)
    sources = re.findall(r"""<script\b[^>]*\bsrc=["']([^"']+)""", answer.body)
    own = [urljoin(url, source) for source in sources]
    own = [source for source in own if urlsplit(source).netloc == urlsplit(url).netloc][:SCRIPTS]
    scripts = gather(
        {source: lambda source=source: fetch(options, source) for source in own},  # type: ignore[misc]
        Deadline(options.timeout),
    )
    texts = {url: answer.body}
    texts |= {name: datum["value"].body for name, datum in scripts.items() if "value" in datum}
    date = email.utils.parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
    return {
        "status": answer.status,
        "location": answer.headers.get("location", ""),
        "server": answer.headers.get("server", ""),
        "hsts": "strict-transport-security" in answer.headers,
        "scripts": own,
        "unread": [name for name, datum in scripts.items() if "missing" in datum],
        "sockets": any("WebSocket" in text for text in texts.values()),
        # What frontend/utils/websocket.ts says and sends, in a built script, too.
        "reconnects": any(all(sign in text for sign in RECONNECTS) for text in texts.values()),
        "insecure": sorted({found for text in texts.values() for found in INSECURE.findall(text)}),
        "rocket_loader": "rocket-loader" in answer.body,
        "date": date.timestamp() if date else None,
        "asked": asked,
    }


def socket_path(options: Options) -> dict[str, Any]:
    """Return how the edge treats a plain GET below the WebSocket path: the status, and whether it caches."""
    answer = fetch(options, f"{options.url}{options.websocket_path}site-check")
    return {"status": answer.status, "cache": answer.headers.get("cf-cache-status", "")}


def zone(options: Options, deadline: Deadline) -> dict[str, Datum]:
    """Return the data that Cloudflare's API has on the zone."""
    if not options.api_token or not options.zone:
        raise Missing("no API token is given, so the zone was not asked (site_check_api_token).")
    try:
        api = CloudflareApi(options.api_token, options.api_base_url, timeout=deadline.left(options.timeout))
        found = api.find_zone(options.zone)
    except CloudflareFailure as error:
        # Not a missing datum alone: a token that has expired is a fault to be mended.
        why = {"missing": str(error)}
        refused = {"value": {"ok": False, "status": refusal(error), "says": str(error)}}
        return {"token": refused, **dict.fromkeys(("settings", "dns", "rules", "origin_pulls"), why)}
    base = f"/zones/{found.id}"
    host = urlsplit(options.url).hostname or ""

    def ask(path: str, what: str, needs: str, query: Mapping[str, str] | None = None) -> Any:
        try:
            return api.call(Call("get", base + path, what, needs, query=query or {}))
        except CloudflareFailure as error:
            raise Missing(str(error)) from error

    def setting(name: str) -> Any:
        return ask(f"/settings/{name}", f"read zone setting {name}", "Zone Settings Read")["value"]

    def rules(phase: str) -> list[dict[str, Any]]:
        path = f"/rulesets/phases/{phase}/entrypoint"
        try:
            entry = api.call(Call("get", base + path, f"read the rules of {phase}", "Zone Read"))
        except CloudflareFailure as error:
            # 404: there are none. Any other refusal leaves it open.
            if error.codes & {10003, 10007}:
                return []
            raise Missing(str(error)) from error
        return list(entry.get("rules") or [])

    def many(asked: Mapping[str, Datum]) -> dict[str, Any]:
        values = {name: datum["value"] for name, datum in asked.items() if "value" in datum}
        if asked and not values:
            raise Missing(next(iter(asked.values()))["missing"])
        return values

    def each(question: Any, names: Sequence[str]) -> dict[str, Datum]:
        return gather(
            {name: lambda name=name: question(name) for name in names},  # type: ignore[misc]
            Deadline(deadline.left() - 0.3),
        )

    def dns() -> list[dict[str, Any]]:
        records = ask("/dns_records", "read the DNS records", "DNS Read", {"name": host})
        return [{key: record[key] for key in ("type", "name", "content", "proxied")} for record in records]

    def phases() -> dict[str, list[dict[str, Any]]]:
        asked = each(rules, list(PHASES.values()))
        by_name = {short: asked[phase] for short, phase in PHASES.items()}
        return many(by_name)

    def origin_pulls() -> dict[str, Any]:
        what, needs = "read Authenticated Origin Pulls", "SSL and Certificates Read"
        return {
            "zone": bool(ask("/origin_tls_client_auth/settings", what, needs).get("enabled")),
            "global": setting("tls_client_auth") == "on",
        }

    inner = gather(
        {
            "settings": lambda: many(each(setting, SETTINGS)),
            "dns": dns,
            "rules": phases,
            "origin_pulls": origin_pulls,
        },
        Deadline(deadline.left() - 0.2),
    )
    return {"token": {"value": {"ok": True, "status": "active", "says": ""}}, **inner}


def refusal(error: CloudflareFailure) -> str:
    """Return how a token was refused: expired, disabled, refused, or unknown for any other failure."""
    words = {
        Reason.TOKEN_EXPIRED: "expired",
        Reason.TOKEN_DISABLED: "disabled",
        Reason.TOKEN_UNKNOWN: "refused",
    }
    return words.get(error.reason, "unknown")
