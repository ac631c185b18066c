"""Walk the way of a browser's socket, stage by stage: dns, tcp, tls, http, pong. For the probing modules."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

try:
    import websocket
except ImportError:
    websocket = None  # type: ignore[assignment]

STAGES = ("dns", "tcp", "tls", "http", "pong")
PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
# OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_* in openssl/x509_vfy.h).
CERTIFICATE_ERRORS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "ends in an authority that is not trusted",
    20: "was signed by an authority that is not trusted",
    21: "was signed by an authority that is not trusted",
    62: "is for another name",
    64: "is for another address",
}
# Threads see their own timeouts a moment before the caller gives up on them, and say it better.
GRACE = 0.25

# The options of a target, for the modules that take some; see site_probe.
TARGET_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "address": {"type": "str"},
    "port": {"type": "int"},
    "until": {"type": "str", "choices": list(STAGES)},
    "verify": {"type": "bool", "default": True},
    "ca_file": {"type": "path"},
    "origin": {"type": "str"},
    "cookie": {"type": "str", "no_log": True},
    "healthy_close_codes": {"type": "list", "elements": "int", "default": []},
    "timeout": {"type": "float", "default": 5},
}


@dataclass(frozen=True)
class Target:
    """One place to probe; the fields are the module's suboptions, with what the URL implies filled in.

    `limit` is in seconds from the start of the probe.
    """

    name: str
    url: str
    secure: bool
    is_websocket: bool
    host: str
    address: str
    port: int
    until: str
    verify: bool
    ca_file: str | None
    origin: str | None
    cookie: str | None
    healthy_close_codes: tuple[int, ...]
    limit: float


@dataclass
class Result:
    """What was found; the fields are the module's RETURN. Filled in while the probe goes on."""

    name: str
    url: str
    address: str = ""
    ok: bool = False
    stage: str = "dns"
    error: str = ""
    status: int | None = None
    server: str = ""
    close_code: int | None = None
    handshake_ms: float | None = None
    pong_ms: float | None = None


def can_upgrade() -> bool:
    """Tell whether websocket-client is there, without which no probe gets beyond the stage tls."""
    return websocket is not None


class StageError(Exception):
    """A stage failed; the text is the sentence for the user."""


def read_target(values: dict[str, Any], deadline: float) -> Target:
    """Return the target that the module's parameters describe.

    Raises ValueError with a sentence that names the input, its value and the remedy.
    """
    name, url = values["name"], values["url"]
    for key in ("url", "origin", "cookie"):
        text = values[key] or ""
        if any(ord(character) < 32 or ord(character) == 127 for character in text) or (
            key == "url" and " " in text
        ):
            raise ValueError(
                f"{key} of target '{name}' holds a line break or a control character; give one line."
            )
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url of target '{name}' is '{url}': {error}; give a whole URL.") from error
    if scheme not in PORTS or not host:
        raise ValueError(
            f"url of target '{name}' is '{url}'; give one that begins with ws://, wss://, http:// or "
            "https:// and names a host."
        )
    secure, is_websocket = scheme in ("wss", "https"), scheme in ("ws", "wss")
    until = values["until"] or ("pong" if is_websocket else "http")
    if until == "tls" and not secure:
        raise ValueError(
            f"until of target '{name}' is tls, but '{url}' has no TLS; give a wss:// or https:// URL."
        )
    if until == "pong" and not is_websocket:
        raise ValueError(
            f"until of target '{name}' is pong, but '{url}' is no WebSocket; give ws:// or wss://."
        )
    if values["port"] is not None:
        port = values["port"]
        if not 0 < port < 65536:
            raise ValueError(f"port of target '{name}' is {port}; give a port from 1 to 65535.")
    if values["timeout"] <= 0:
        raise ValueError(f"timeout of target '{name}' is {values['timeout']:g}; give seconds above 0.")
    return Target(
        name=name,
        url=url,
        secure=secure,
        is_websocket=is_websocket,
        host=host,
        address=values["address"] or host,
        port=port or PORTS[scheme],
        until=until,
        verify=values["verify"],
        ca_file=values["ca_file"],
        origin=values["origin"],
        cookie=values["cookie"],
        healthy_close_codes=tuple(values["healthy_close_codes"]),
        limit=min(values["timeout"], deadline),
    )


def join_host_port(host: str, port: int) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def silence(stage: str, where: str, seconds: float) -> str:
    """Return the sentence for a stage that got no answer within `seconds`."""
    within = f"within {seconds:g} s"
    return {
        "dns": f"the resolver gave no address for {where} {within}.",
        "tcp": f"no answer from {where} {within}: packets are dropped on the way, or the machine is down.",
        "tls": f"{where} accepted the connection and did not finish the TLS handshake {within}.",
        "http": f"{where} accepted the connection and sent no HTTP answer {within}.",
        "pong": f"the socket is open, but the ping was not answered {within}.",
    }[stage]


def left(end: float) -> float:
    """Return the seconds until `end` on the monotonic clock; raises TimeoutError when there are none."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def since(start: float) -> float:
    """Return the milliseconds since `start` on the monotonic clock."""
    return round((time.monotonic() - start) * 1000, 1)


def resolve(target: Target) -> list[tuple[int, tuple[Any, ...]]]:
    """Return the address families and socket addresses to connect to; raises StageError."""
    try:
        found = socket.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StageError(f"the name {target.address} has no address: {why}.") from error
    return [(family, address) for family, _, _, _, address in found]


def connect(addresses: list[tuple[int, tuple[Any, ...]]], result: Result, end: float) -> socket.socket:
    """Return a connection to the first address that takes one; raises StageError or TimeoutError."""
    for index, (family, address) in enumerate(addresses):
        result.address = join_host_port(address[0], address[1])
        is_last = index == len(addresses) - 1
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Each address gets its share of the time: a dead IPv6 way must not hide a live IPv4 one.
            connection.settimeout(left(end) / (len(addresses) - index))
            connection.connect(address)
        except OSError as error:
            connection.close()
            if not is_last:
                continue
            if isinstance(error, TimeoutError):
                raise
            if isinstance(error, ConnectionRefusedError):
                raise StageError(f"connection refused: nothing listens on {result.address}.") from error
            raise StageError(f"no connection to {result.address}: {error.strerror or error}.") from error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise AssertionError("getaddrinfo returns an address or raises")


def start_tls(connection: socket.socket, target: Target, where: str) -> ssl.SSLSocket:
    """Return the connection with TLS on it; raises StageError or TimeoutError."""
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StageError(
            f"ca_file is '{target.ca_file}', which can't be read as PEM certificates: "
            f"{error.strerror or error}."
        ) from error
    # Python 3.13 asks more of a certificate than browsers and earlier versions do.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(connection, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        what = CERTIFICATE_ERRORS.get(error.verify_code, f"is not valid ({error.verify_message})")
        raise StageError(f"the certificate that {where} shows for {target.host} {what}.") from error
    except TimeoutError:
        raise
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise StageError(f"{where} closed the connection during the TLS handshake.") from error
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            raise StageError(f"{where} answers, but not with TLS.") from error
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise StageError(f"{where} broke off the TLS handshake: {reason}.") from error
    except OSError as error:
        raise StageError(f"{where} closed the connection during the TLS handshake.") from error


def describe_status(status: int, server: str) -> str:
    """Return an HTTP status in words, with who sent it."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"HTTP {status}{phrase}" + (f" from {server}" if server else "")


def ask(connection: socket.socket, target: Target, result: Result) -> None:
    """Send one GET and note its status; raises StageError or TimeoutError."""
    parts = urlsplit(target.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Host": parts.netloc.rpartition("@")[2], "Connection": "close"}
    headers |= {"Origin": target.origin} if target.origin else {}
    headers |= {"Cookie": target.cookie} if target.cookie else {}
    client = http.client.HTTPConnection(target.host)
    client.sock = connection
    try:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
    except http.client.RemoteDisconnected:
        raise  # a connection error, told as such, although it is an HTTPException too
    except http.client.HTTPException as error:
        raise StageError(f"{result.address} answers, but not with HTTP.") from error
    result.status, result.server = response.status, response.getheader("Server") or ""
    if not 200 <= response.status < 400:
        raise StageError(f"{describe_status(response.status, result.server)} instead of a page.")


def upgrade(connection: socket.socket, target: Target, result: Result) -> Any:
    """Return the WebSocket that the connection became; raises StageError or TimeoutError."""
    if websocket is None:
        raise StageError("not tried: websocket-client is not installed yet.")
    client = websocket.WebSocket(enable_multithread=False)
    try:
        client.connect(  # type: ignore[no-untyped-call]
            target.url,
            socket=connection,
            origin=target.origin,
            suppress_origin=not target.origin,
            cookie=target.cookie,
            redirect_limit=0,
        )
        result.status = client.status
    except websocket.WebSocketTimeoutException as error:
        raise TimeoutError from error
    except websocket.WebSocketConnectionClosedException as error:
        raise StageError(
            f"{result.address} closed the connection instead of answering the upgrade."
        ) from error
    except websocket.WebSocketBadStatusException as error:
        # Never the exception's own text: it holds the answer's headers, cookies among them.
        result.status = error.status_code
        result.server = (getattr(error, "resp_headers", None) or {}).get("server", "")
    except (websocket.WebSocketException, ValueError, IndexError) as error:
        # A redirect has a status; some versions of the library raise on it, some don't.
        if client.status is None:
            raise StageError(f"{result.address} answers, but not with a WebSocket handshake.") from error
        result.status = client.status
    result.server = (client.headers or {}).get("server", result.server)
    if result.status is not None and result.status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise StageError(f"{describe_status(result.status, result.server)} instead of 101.")
    return client


def is_pong(data: bytes) -> bool:
    """Return whether a text message is the answer to a ping."""
    try:
        message = json.loads(data)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("type") == "pong"


def ping(client: Any, target: Target, result: Result, end: float) -> None:
    """Send `ping` and wait for the pong; raises StageError or TimeoutError."""
    start = time.monotonic()
    try:
        client.send("ping")
        while True:
            client.settimeout(left(end))
            opcode, data = client.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_TEXT and is_pong(data):
                result.pong_ms = since(start)
                return
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                break
    except websocket.WebSocketTimeoutException as error:
        raise TimeoutError from error
    except (websocket.WebSocketException, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise StageError("the socket broke off without a close code before the pong came.") from error
    result.close_code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
    if result.close_code not in target.healthy_close_codes:
        reason = data[2:].decode(errors="replace").strip()
        raise StageError(
            f"the server closed the socket with {result.close_code}" + (f" ({reason})." if reason else ".")
        )


def walk(target: Target, result: Result, end: float) -> None:
    """Go from stage to stage until the last one asked for; raises StageError or TimeoutError."""
    addresses = resolve(target)
    if target.until == "dns":
        return
    result.stage = "tcp"
    start = time.monotonic()
    connection = connect(addresses, result, end)
    try:
        if target.until == "tcp":
            return
        if target.secure:
            result.stage = "tls"
            connection.settimeout(left(end))
            connection = start_tls(connection, target, result.address)
            if target.until == "tls":
                return
        result.stage = "http"
        connection.settimeout(left(end))
        try:
            if not target.is_websocket:
                ask(connection, target, result)
                result.handshake_ms = since(start)
                return
            client = upgrade(connection, target, result)
        except TimeoutError:
            raise
        except OSError as error:
            raise StageError(f"{result.address} closed the connection instead of answering.") from error
        result.handshake_ms = since(start)
        if target.until == "pong":
            result.stage = "pong"
            ping(client, target, result, end)
        # All is known by now: a server that is already gone is no finding.
        with contextlib.suppress(OSError, websocket.WebSocketException):
            client.send_close()
    finally:
        connection.close()


def run(target: Target, result: Result, end: float) -> None:
    """Probe one target and fill in its result."""
    try:
        walk(target, result, end)
        result.ok = True
    except StageError as error:
        result.error = str(error)
    except TimeoutError:
        result.error = silence(result.stage, result.address or target.address, target.limit)
    except Exception as error:
        # A thread's exception would be lost, and its target's result with it.
        result.error = f"the probe itself failed, which is a bug in it: {error!r}."


def probe(targets: list[Target]) -> list[Result]:
    """Probe all targets at once; return their results in order, no later than the largest limit.

    A thread that is still busy then (a resolver or a server that trickles) is left behind and dies with the
    process.
    """
    start = time.monotonic()
    results = [Result(target.name, target.url) for target in targets]
    threads = [
        threading.Thread(target=run, args=(target, result, start + target.limit), daemon=True)
        for target, result in zip(targets, results, strict=True)
    ]
    for thread in threads:
        thread.start()
    for index, (target, thread) in enumerate(zip(targets, threads, strict=True)):
        thread.join(max(0.0, start + target.limit + GRACE - time.monotonic()))
        if thread.is_alive():
            seen = replace(results[index])
            where = seen.address or target.address
            results[index] = replace(seen, ok=False, error=silence(seen.stage, where, target.limit))
    return results
