"""The site from outside: its zone at Cloudflare, the edge and the page. Only reads."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..cloudflare.client import Call, CloudflareApi, CloudflareFailure, Reason
from ..cloudflare.scope import in_effect
from ..probe.stages import Result, StageError, connect, probe_by_name, resolve, start_tls
from ..probe.target import Target
from .document import Datum, Missing
from .gather import Deadline, gather, gather_with_group

ZONE = ("token", "settings", "dns", "rules", "origin_pulls")
SETTINGS = (
    "ssl", "websockets", "rocket_loader", "always_use_https", "tls_client_auth", "min_tls_version",
    "development_mode", "security_level",
)  # fmt: skip
# Cloudflare's names for the phases of rules, and this project's.
PHASES = {
    "cache": "http_request_cache_settings",
    "config": "http_config_settings",
    "compression": "http_response_compression",
}
# Cloudflare's error codes for a phase without a ruleset.
NO_RULESET = {10003, 10007}
# Strings of frontend/utils/websocket.ts that survive minification.
CLIENT_SIGNS = ("[WebSocket] Disconnected", "last_event_id")
ALIAS_PATH = "/site-check?alias"  # a redirect that loses path or query is wrong
SCRIPTS = 6  # scripts of the page that are read, at most
BODY = 3_000_000  # bytes of a page or script that are read, at most
# A socket's URL without TLS in source code: "ws://host", `ws://${host}`, 'ws://' + host.
INSECURE = re.compile(r"""["'`]ws://(?!localhost|127\.0\.0\.1)[^"'`\s]{0,80}["'`]?""")


@dataclass(frozen=True)
class Options:
    """The options of module site_evidence_edge. Times in seconds."""

    url: str
    aliases: list[str]
    websocket_path: str
    targets: list[Target]
    address: str
    port: int
    ca_file: str | None
    api_token: str
    api_base_url: str
    zone: str
    zone_id: str
    timeout: float
    deadline: float


@dataclass(frozen=True)
class Response:
    """An HTTP response, its body cut to BODY bytes; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


def gather_edge(options: Options) -> dict[str, Datum]:
    """Return the edge's part of the evidence document, within the deadline."""
    deadline = Deadline(options.deadline)
    return gather_with_group(
        {
            "resolved": lambda: resolved(options),
            "probes": lambda: probe_by_name(options.targets),
            "page": lambda: page(options),
            "aliases": lambda: aliases(options),
            "socket_path": lambda: socket_path(options),
            "zone": lambda: zone(options, deadline),
        },
        "zone",
        ZONE,
        deadline,
    )


def resolved(options: Options) -> list[str]:
    """Return the addresses that visitors connect to; raises Missing."""
    host = urlsplit(options.url).hostname or ""
    try:
        found = socket.getaddrinfo(options.address or host, options.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Missing(f"the name {host} has no address: {error}.", "no_address") from error
    return sorted({str(address[0]) for *_, address in found})


def fetch(options: Options, url: str) -> Response:
    """Return the edge's response to a visitor's GET; raises Missing."""
    parts = urlsplit(url)
    target = Target(
        name="page", url=url, secure=parts.scheme == "https", is_websocket=False, host=parts.hostname or "",
        address=options.address or parts.hostname or "", port=options.port, until="http", verify=True,
        ca_file=options.ca_file, origin=None, cookie=None, healthy_close_codes=(), limit=options.timeout,
    )  # fmt: skip
    end = time.monotonic() + options.timeout
    result = Result("page", url)
    try:
        connection = connect(resolve(target), result, end)
        with connection:
            connection.settimeout(options.timeout)
            client = http.client.HTTPConnection(target.host)
            client.sock = start_tls(connection, target, result.address) if target.secure else connection
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            client.request("GET", path, headers={"Host": parts.netloc, "Connection": "close"})
            response = client.getresponse()
            headers = {name.lower(): text for name, text in response.getheaders()}
            return Response(response.status, headers, response.read(BODY).decode(errors="replace"))
    except StageError as error:
        raise Missing(str(error), error.reason) from error
    except TimeoutError as error:
        raise Missing(f"{url} did not respond within {options.timeout:g} s.", "timeout") from error
    except (OSError, http.client.HTTPException) as error:
        raise Missing(f"{url} did not respond: {error or type(error).__name__}.", "closed") from error


def page(options: Options) -> dict[str, Any]:
    """Return what the page contains: its scripts, sockets without TLS, Rocket Loader; raises Missing."""
    url = options.url + "/"
    requested_at = time.time()
    answer = fetch(options, url)
    sources = re.findall(r"""<script\b[^>]*\bsrc=["']([^"']+)""", answer.body)
    own = [urljoin(url, source) for source in sources]
    own = [source for source in own if urlsplit(source).netloc == urlsplit(url).netloc][:SCRIPTS]
    scripts = _each(lambda source: fetch(options, source), own, Deadline(options.timeout))
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
        "reconnects": any(all(sign in text for sign in CLIENT_SIGNS) for text in texts.values()),
        "insecure": sorted({found for text in texts.values() for found in INSECURE.findall(text)}),
        "rocket_loader": "rocket-loader" in answer.body,
        "date": date.timestamp() if date else None,
        "asked": requested_at,
    }


def _each(source: Callable[[str], Any], names: Sequence[str], deadline: Deadline) -> dict[str, Datum]:
    """Return the datum of source(name) for each name, all at once."""
    return gather({name: lambda name=name: source(name) for name in names}, deadline)  # type: ignore[misc]


def aliases(options: Options) -> dict[str, dict[str, Any]]:
    """Return how the edge answers a GET under each alias: `status` and `location`, or the `error`."""
    site = urlsplit(options.url)
    urls = {
        name: site._replace(netloc=site.netloc.replace(site.hostname or "", name), path=ALIAS_PATH).geturl()
        for name in options.aliases
    }
    found = _each(lambda name: fetch(options, urls[name]), list(urls), Deadline(options.timeout))
    return {
        name: {"status": None, "location": "", "error": datum["missing"]}
        if "missing" in datum
        else {
            "status": datum["value"].status,
            "location": datum["value"].headers.get("location", ""),
            "error": "",
        }
        for name, datum in found.items()
    }


def socket_path(options: Options) -> dict[str, Any]:
    """Return status and CF-Cache-Status of a plain GET below the WebSocket path; raises Missing."""
    response = fetch(options, f"{options.url}{options.websocket_path}site-check")
    return {"status": response.status, "cache": response.headers.get("cf-cache-status", "")}


def zone(options: Options, deadline: Deadline) -> dict[str, Datum]:
    """Return the data ZONE, from Cloudflare's API; raises Missing."""
    if not options.api_token or not options.zone:
        raise Missing("no API token is given, so the zone was not read (site_check_api_token).")
    try:
        api = CloudflareApi(options.api_token, options.api_base_url, timeout=deadline.left(options.timeout))
        found = api.open_zone(options.zone, options.zone_id)
    except CloudflareFailure as error:
        # More than a missing datum: a token that has expired is a fault to be fixed.
        token = {"value": {"ok": False, "status": refusal(error)}}
        return {**dict.fromkeys(ZONE, Missing(str(error)).datum()), "token": token}
    base = f"/zones/{found.id}"
    host = urlsplit(options.url).hostname or ""

    def read(
        path: str,
        what: str,
        needs: str,
        query: Mapping[str, str] | None = None,
        absent: frozenset[int] = frozenset(),
    ) -> Any:
        """Return a result of the API below the zone, None for the error codes `absent`; raises Missing."""
        try:
            return api.call(Call("get", base + path, what, needs, query=query or {}))
        except CloudflareFailure as error:
            if error.codes & absent:
                return None
            raise Missing(str(error)) from error

    def setting(name: str) -> Any:
        return read(f"/settings/{name}", f"read zone setting {name}", "Zone Settings Read")["value"]

    def rules(phase: str) -> list[dict[str, Any]]:
        path = f"/rulesets/phases/{phase}/entrypoint"
        entry = read(path, f"read the rules of {phase}", "Zone Read", absent=frozenset(NO_RULESET))
        return list((entry or {}).get("rules") or [])

    def values(source: Callable[[str], Any], names: Sequence[str]) -> dict[str, Any]:
        """Return source(name) by name, without those that can't be read; raises Missing when none can."""
        data = _each(source, names, Deadline(deadline.left() - 0.3))
        known = {name: datum["value"] for name, datum in data.items() if "value" in datum}
        if not known:
            first = next(iter(data.values()))
            raise Missing(first["missing"], first["reason"])
        return known

    def dns() -> list[dict[str, Any]]:
        found = _each(
            lambda name: read("/dns_records", "read the DNS records", "DNS Read", {"name": name}),
            [host, *options.aliases],
            Deadline(deadline.left() - 0.3),
        )
        for datum in found.values():
            if "missing" in datum:
                raise Missing(datum["missing"], datum["reason"])
        records = [record for datum in found.values() for record in datum["value"]]
        return [{key: record[key] for key in ("type", "name", "content", "proxied")} for record in records]

    def origin_pulls() -> dict[str, Any]:
        what, needs = "read Authenticated Origin Pulls", "SSL and Certificates Read"
        return {
            "zone": bool(read("/origin_tls_client_auth/settings", what, needs).get("enabled")),
            "global": setting("tls_client_auth") == "on",
        }

    inner = gather(
        {
            "settings": lambda: values(setting, SETTINGS),
            "dns": dns,
            "rules": lambda: values(lambda name: rules(PHASES[name]), list(PHASES)),
            "origin_pulls": origin_pulls,
        },
        Deadline(deadline.left() - 0.2),
    )
    if "value" in inner["settings"]:
        own_rules = inner["rules"].get("value", {}).get("config", [])
        inner["settings"]["value"] = in_effect(inner["settings"]["value"], own_rules)
    return {"token": {"value": {"ok": True, "status": "active"}}, **inner}


def refusal(error: CloudflareFailure) -> str:
    """Return how a token was refused: expired, disabled, refused, or unknown for any other failure."""
    words = {
        Reason.TOKEN_EXPIRED: "expired",
        Reason.TOKEN_DISABLED: "disabled",
        Reason.TOKEN_UNKNOWN: "refused",
    }
    return words.get(error.reason, "unknown")
