"""Probe targets stage by stage, as a browser's socket connects: dns, tcp, tls, http, pong."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import threading
import time
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

from .target import Target

try:
    import websocket
except ImportError:
    websocket = None  # type: ignore[assignment]

# Why a stage failed; `error` is the same as a sentence.
Reason = Literal[
    "",  # it did not fail
    "no_address",  # the name does not resolve
    "refused",  # nothing listens on the port
    "unreachable",  # another error of the operating system while connecting
    "ca_file",  # the given authorities can't be read
    "certificate",  # the certificate is not valid for the host
    "not_tls",  # the peer answers with something else than TLS
    "tls",  # another failure of the handshake
    "closed",  # the peer closed the connection, or the socket without an accepted close code
    "not_http",  # the peer answers with something else than HTTP or a WebSocket handshake
    "status",  # an HTTP status other than the one expected
    "timeout",  # no answer in time
    "no_library",  # websocket-client is not installed
    "internal",  # a bug in the probe
]
# X509_V_ERR_* of OpenSSL 3 (openssl/x509_vfy.h), as ssl.SSLCertVerificationError.verify_code has them.
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
# ssl.SSLError.reason of OpenSSL 3 for a peer that does not use TLS.
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
# Seconds: a probe's own timeout fires before its caller's, and its error is more specific.
GRACE = 0.25


@dataclass
class Result:
    """The result of one probe, updated while it runs; the fields are the module's RETURN."""

    name: str
    url: str
    address: str = ""
    ok: bool = False
    stage: str = "dns"
    reason: Reason = ""
    error: str = ""
    status: int | None = None
    server: str = ""
    close_code: int | None = None
    handshake_ms: float | None = None
    pong_ms: float | None = None


def can_upgrade() -> bool:
    """Return whether websocket-client is installed; without it no WebSocket probe passes the stage tls."""
    return websocket is not None


class StageError(Exception):
    """A stage failed: the reason, and a sentence for the user."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def join_host_port(host: str, port: int) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def timeout_message(stage: str, where: str, seconds: float) -> str:
    """Return the sentence for a stage that got no answer within `seconds`."""
    within = f"within {seconds:g} s"
    return {
        "dns": f"the resolver returned no address for {where} {within}.",
        "tcp": f"no answer from {where} {within}: packets are dropped on the way, or the host is down.",
        "tls": f"{where} accepted the connection and did not finish the TLS handshake {within}.",
        "http": f"{where} accepted the connection and sent no HTTP response {within}.",
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
        raise StageError("no_address", f"the name {target.address} has no address: {why}.") from error
    return [(family, address) for family, _, _, _, address in found]


def connect(addresses: list[tuple[int, tuple[Any, ...]]], result: Result, end: float) -> socket.socket:
    """Return a connection to the first address that accepts one; raises StageError or TimeoutError."""
    for index, (family, address) in enumerate(addresses):
        result.address = join_host_port(address[0], address[1])
        is_last = index == len(addresses) - 1
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Each address gets its share of the time: an IPv6 address that drops packets must not use up
            # IPv4's.
            connection.settimeout(left(end) / (len(addresses) - index))
            connection.connect(address)
        except OSError as error:
            connection.close()
            if not is_last:
                continue
            if isinstance(error, TimeoutError):
                raise
            if isinstance(error, ConnectionRefusedError):
                raise StageError(
                    "refused", f"connection refused: nothing listens on {result.address}."
                ) from error
            raise StageError(
                "unreachable", f"no connection to {result.address}: {error.strerror or error}."
            ) from error
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
            "ca_file",
            f"ca_file is '{target.ca_file}', which can't be read as PEM certificates: "
            f"{error.strerror or error}.",
        ) from error
    # Python 3.13 checks more of a certificate than browsers and earlier versions do.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(connection, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        what = CERTIFICATE_ERRORS.get(error.verify_code, f"is not valid ({error.verify_message})")
        raise StageError(
            "certificate", f"the certificate that {where} presents for {target.host} {what}."
        ) from error
    except TimeoutError:
        raise
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise StageError("closed", f"{where} closed the connection during the TLS handshake.") from error
    except ssl.SSLError as error:
        if error.reason in NOT_TLS:
            raise StageError("not_tls", f"{where} answers, but not with TLS.") from error
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise StageError("tls", f"{where} aborted the TLS handshake: {reason}.") from error
    except OSError as error:
        raise StageError("closed", f"{where} closed the connection during the TLS handshake.") from error


def describe_status(status: int, server: str) -> str:
    """Return an HTTP status in words, with the server that sent it."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"HTTP {status}{phrase}" + (f" from {server}" if server else "")


def request_page(connection: socket.socket, target: Target, result: Result) -> None:
    """Send one GET and record its status; raises StageError or TimeoutError."""
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
        raise  # a connection error, reported as such, although it is an HTTPException too
    except http.client.HTTPException as error:
        raise StageError("not_http", f"{result.address} answers, but not with HTTP.") from error
    result.status, result.server = response.status, response.getheader("Server") or ""
    if not 200 <= response.status < 400:
        raise StageError("status", f"{describe_status(response.status, result.server)} instead of a page.")


def upgrade(connection: socket.socket, target: Target, result: Result) -> Any:
    """Return the WebSocket that the connection became; raises StageError or TimeoutError."""
    if websocket is None:
        raise StageError("no_library", "not probed: websocket-client is not installed yet.")
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
            "closed", f"{result.address} closed the connection instead of answering the upgrade."
        ) from error
    except websocket.WebSocketBadStatusException as error:
        # Never the exception's own text: it contains the response's headers, cookies among them.
        result.status = error.status_code
        result.server = (getattr(error, "resp_headers", None) or {}).get("server", "")
    except (websocket.WebSocketException, ValueError, IndexError) as error:
        # A redirect has a status; some versions of the library raise on it, some don't.
        if client.status is None:
            raise StageError(
                "not_http", f"{result.address} answers, but not with a WebSocket handshake."
            ) from error
        result.status = client.status
    result.server = (client.headers or {}).get("server", result.server)
    if result.status is not None and result.status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise StageError("status", f"{describe_status(result.status, result.server)} instead of 101.")
    return client


def open_socket(target: Target, result: Result, end: float) -> Any:
    """Return an open WebSocket to the target; raises StageError, TimeoutError or another OSError."""
    connection = connect(resolve(target), result, end)
    try:
        connection.settimeout(left(end))
        if target.secure:
            connection = start_tls(connection, target, result.address)
        return upgrade(connection, target, result)
    except BaseException:
        connection.close()
        raise


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
        raise StageError("closed", "the socket ended without a close code before the pong came.") from error
    result.close_code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
    if result.close_code not in target.healthy_close_codes:
        reason = data[2:].decode(errors="replace").strip()
        raise StageError(
            "closed",
            f"the server closed the socket with {result.close_code}" + (f" ({reason})." if reason else "."),
        )


def walk(target: Target, result: Result, end: float) -> None:
    """Run the stages up to the target's last one; raises StageError or TimeoutError."""
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
                request_page(connection, target, result)
                result.handshake_ms = since(start)
                return
            client = upgrade(connection, target, result)
        except TimeoutError:
            raise
        except OSError as error:
            raise StageError(
                "closed", f"{result.address} closed the connection instead of answering."
            ) from error
        result.handshake_ms = since(start)
        if target.until == "pong":
            result.stage = "pong"
            ping(client, target, result, end)
        # The result is complete: a peer that is already gone is not a failure.
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
        result.reason, result.error = error.reason, str(error)
    except TimeoutError:
        where = result.address or target.address
        result.reason, result.error = "timeout", timeout_message(result.stage, where, target.limit)
    except Exception as error:
        # A thread's exception would be lost, and its target's result with it.
        result.reason, result.error = "internal", f"internal error in the probe (please report): {error!r}."


def probe(targets: list[Target]) -> list[Result]:
    """Probe all targets at once; return their results in order, no later than the largest limit.

    A thread that is still blocked then (by a resolver, or a server that trickles) is abandoned and ends with
    the process.
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
            error = timeout_message(seen.stage, seen.address or target.address, target.limit)
            results[index] = replace(seen, ok=False, reason="timeout", error=error)
    return results


def probe_by_name(targets: list[Target]) -> dict[str, dict[str, Any]]:
    """Probe all targets at once; return the fields of each result, by the target's name."""
    return {result.name: asdict(result) for result in probe(targets)}
