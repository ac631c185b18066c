"""What is known of the site on its server, asked all at once. It writes to the probe's channel alone."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..probe.websocket import probe, read_target
from . import nginx_config
from .document import Datum, Deadline, Missing, gather, last_lines, run

try:
    import websocket
except ImportError:
    websocket = None  # type: ignore[assignment]

NGINX = Path("/etc/nginx/nginx.conf")
# Where the api listens inside its container (docs/contract.md).
API_PORT = 8000
API_SOCKETS = "/run/screen-flow/"
# A container's environment holds secrets, too; these variables are none.
OPEN_VARIABLES = ("APP_HEARTBEAT_SECONDS", "APP_ALLOWED_ORIGINS", "APP_LOG_LEVEL", "APP_DEMO_SIGN_IN")
INFO = (
    "redis_version", "uptime_in_seconds", "connected_clients", "maxclients", "used_memory", "maxmemory",
    "maxmemory_policy", "rdb_last_bgsave_status", "aof_last_write_status", "aof_enabled", "role", "loading",
    "rejected_connections", "evicted_keys",
)  # fmt: skip
# Run in the worker's container: one event for the probe's own person, on the way of the backend's events.
CANARY = """
import os, sys, redis
from app.events import PUBLISH, channel, stream
user, event = sys.argv[1:]
secret = os.environ.get("APP_REDIS_PASSWORD_FILE")
given = {"password": open(secret).read().strip()} if secret else {}
given |= {"socket_timeout": 3, "socket_connect_timeout": 3}
client = redis.Redis.from_url(os.environ["APP_REDIS_URL"], **given)
client.eval(PUBLISH, 1, stream(user), channel(user), event)
print(channel(user))
"""
# Whoever brings containers up or down at this moment.
DEPLOYING = re.compile(r"docker(-| )compose\b.*\b(up|restart|create|pull|build|stop|down|rm|start)\b")
SETTLING = 15  # seconds after its start in which a container that is not healthy yet counts as starting


@dataclass(frozen=True)
class Options:
    """What the server is asked about: the options of module site_evidence_server. Times in seconds."""

    targets: list[dict[str, Any]]
    websocket_path: str
    user_id: str
    server_name: str
    origin: str
    cookie: str
    api_port: int
    https_port: int
    compose_dir: str
    control_time: float
    timeout: float
    deadline: float


def gather_server(options: Options) -> dict[str, Datum]:
    """Return the server's part of the evidence document, within the deadline."""
    deadline = Deadline(options.deadline)
    found = gather(
        {
            "clock": lambda: clock(options),
            "services": lambda: services(deadline),
            "nginx_test": lambda: nginx_test(deadline),
            "nginx_config": lambda: nginx_facts(options),
            "nginx_loaded": nginx_loaded,
            "listening": listening,
            "certificate": lambda: certificate(options, deadline),
            "stack": lambda: stack(options, deadline),
            "deploying": deploying,
            "ready": lambda: ready(options),
            "upstream": lambda: upstream(options),
            "probes": lambda: probes(options),
            "disk": disk,
            "files": lambda: files(options),
            "firewall": lambda: firewall(deadline),
            "nginx_log": nginx_log,
            "refused": refused,
            "addresses": lambda: addresses(deadline),
        },
        deadline,
    )
    # The stack's own data depend on one list of containers, but stand beside it in the document.
    inner = found["stack"].pop("value", None)
    if inner is None:
        why = found.pop("stack")
        return {
            **found,
            **dict.fromkeys(("containers", "redis", "worker", "canary", "app_logs", "sockets"), why),
        }
    del found["stack"]
    return {**found, **inner}


def clock(options: Options) -> dict[str, float]:
    """Return the server's time beside the control node's at the start of the run, in Unix seconds."""
    return {"server": time.time(), "control": options.control_time}


def services(deadline: Deadline) -> dict[str, dict[str, Any]]:
    """Return the state of each service, as systemd has it."""
    found = {}
    for name in ("nginx", "docker"):
        shown = run(
            ["systemctl", "show", name, "--property=LoadState,ActiveState,SubState,Result,NRestarts"],
            deadline,
        ).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        found[name] = {
            "installed": values.get("LoadState") == "loaded",
            "active": values.get("ActiveState", "unknown"),
            "result": values.get("Result", ""),
        }
    return found


def nginx_test(deadline: Deadline) -> dict[str, Any]:
    """Return whether the configuration on disk passes nginx's own test, and the lines that say why not."""
    # -q: no word when all is well; -e: the test must not write into the site's own log.
    tested = run(["nginx", "-t", "-q", "-e", "stderr"], deadline)
    says = [line for line in tested.stderr.splitlines() if "[emerg]" in line or "failed" in line]
    return {"ok": tested.returncode == 0, "says": last_lines("\n".join(says))}


def nginx_facts(options: Options) -> dict[str, Any]:
    """Return what the configuration on disk says."""
    try:
        main, _ = nginx_config.read(NGINX)
    except OSError as error:
        raise Missing(f"{error.filename or NGINX} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise Missing(f"nginx's configuration can't be read: {error}.") from error
    return nginx_config.describe(main, options.server_name, options.websocket_path)


def _processes() -> list[tuple[int, list[str]]]:
    """Return the id and the command line of each process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        found.append((int(path.name), words))
    return found


def _started(pid: int) -> float:
    """Return when a process started, in Unix seconds."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def nginx_loaded() -> dict[str, Any]:
    """Return when nginx read its configuration last, and the files that have changed since."""
    workers = [pid for pid, words in _processes() if words[0].startswith("nginx: worker process")]
    started = [_started(pid) for pid in workers]
    if not started:
        return {"workers": 0, "loaded": None, "changed": [], "newest": None}
    loaded = max(started)
    try:
        _, read = nginx_config.read(NGINX)
    except (OSError, ValueError):
        read = [NGINX]
    # Two seconds for a reload that follows the writing at once, and the coarse times of processes.
    times = {str(file): file.stat().st_ctime for file in read}
    changed = [name for name, moment in times.items() if moment > loaded + 2]
    return {"workers": len(workers), "loaded": loaded, "changed": changed, "newest": max(times.values())}


def listening() -> list[str]:
    """Return the addresses and ports that take TCP connections, as address:port."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == "0A":
                packed, port = local.split(":")
                # Each group of four bytes is a number of the machine's own byte order.
                raw = b"".join(bytes.fromhex(packed[i : i + 8])[::-1] for i in range(0, len(packed), 8))
                address = socket.inet_ntop(family, raw)
                found.add(f"[{address}]:{int(port, 16)}" if ":" in address else f"{address}:{int(port, 16)}")
    return sorted(found)


def _epoch(text: str) -> float:
    """Return the Unix time of openssl's `Nov 24 19:18:36 2026 GMT`."""
    parsed = datetime.datetime.strptime(text.removesuffix(" GMT"), "%b %d %H:%M:%S %Y")
    return parsed.replace(tzinfo=datetime.UTC).timestamp()


def certificate(options: Options, deadline: Deadline) -> dict[str, Any]:
    """Return what the certificate on disk is, whether the key fits, and which one nginx shows."""
    facts = nginx_facts(options)
    file, key = facts["certificate"], facts["certificate_key"]
    if not file:
        raise Missing("nginx's configuration names no certificate.")
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise Missing(f"the certificate {file} can't be read: {error.strerror}.") from error
    asked = [
        "openssl",
        "x509",
        "-noout",
        "-dates",
        "-subject",
        "-issuer",
        "-ext",
        "subjectAltName",
        "-pubkey",
    ]
    shown = run([*asked, "-in", file], deadline)
    if shown.returncode:
        raise Missing(f"{file} is no certificate that openssl can read.")
    says = dict(re.findall(r"^(notBefore|notAfter|subject|issuer)=(.*)$", shown.stdout, re.MULTILINE))
    public = re.search(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", shown.stdout, re.DOTALL)
    # The key itself stays where it is: openssl prints its public half.
    mine = run(["openssl", "pkey", "-pubout", "-in", key], deadline)
    return {
        "file": file,
        "not_before": _epoch(says["notBefore"]),
        "not_after": _epoch(says["notAfter"]),
        "names": re.findall(r"DNS:([^\s,]+)", shown.stdout),
        "issuer": says["issuer"].strip(),
        "self_signed": says["issuer"].strip() == says["subject"].strip(),
        "key_fits": public is not None and mine.returncode == 0 and public[0] == mine.stdout.strip(),
        "fingerprint": _fingerprint(ssl.PEM_cert_to_DER_cert(_first_pem(text))),
        "shown": _shown(options, deadline),
    }


def _first_pem(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") :].partition(end)[0] + end


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def _shown(options: Options, deadline: Deadline) -> str | None:
    """Return the fingerprint of the certificate that nginx shows, or None when it shows none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", options.https_port), deadline.left(3)) as plain,
            context.wrap_socket(plain, server_hostname=options.server_name) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
    except OSError:
        return None  # the probes say why
    return _fingerprint(der) if der else None


def deploying() -> list[str]:
    """Return the command lines that change the stack at this moment."""
    lines = (" ".join(words) for _, words in _processes())
    return sorted({line[:120] for line in lines if DEPLOYING.search(line)})


def ready(options: Options) -> dict[str, Any]:
    """Return what the api says of itself: the status of /healthz, and status and text of /readyz."""

    def ask(path: str) -> tuple[int | None, str]:
        connection = http.client.HTTPConnection("127.0.0.1", options.api_port, timeout=options.timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(500).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return None, str(error)
        finally:
            connection.close()

    asked = gather(
        {"healthz": lambda: ask("/healthz"), "readyz": lambda: ask("/readyz")}, Deadline(options.timeout)
    )
    health, readiness = (asked[name].get("value", (None, "")) for name in ("healthz", "readyz"))
    return {
        "healthz": health[0],
        "readyz": readiness[0],
        "says": readiness[1] or asked["readyz"].get("missing", ""),
    }


def upstream(options: Options) -> list[dict[str, Any]]:
    """Return each address that nginx passes sockets to, and the status or error of /healthz there."""
    facts = nginx_facts(options)
    location = facts["websocket_location"] or facts["root_location"]
    if not location or not location["proxy_pass"]:
        raise Missing("nginx's configuration passes sockets to nobody.")
    name = urlsplit(location["proxy_pass"]).netloc
    servers = facts["upstreams"].get(name, [name])
    asked = gather(
        {server: partial(_healthz, server, options.timeout) for server in servers}, Deadline(options.timeout)
    )
    return [
        {"server": server, **datum.get("value", {"status": None, "error": datum.get("missing", "")})}
        for server, datum in asked.items()
    ]


def _healthz(server: str, timeout: float) -> dict[str, Any]:
    """Return the status that an upstream's server gives, `unix:PATH` or `host:port`, or the error."""
    path = server.removeprefix("unix:")
    asked = http.client.HTTPConnection("localhost" if path != server else server, timeout=timeout)
    try:
        if path != server:
            asked.sock = socket.socket(socket.AF_UNIX)
            asked.sock.settimeout(timeout)
            asked.sock.connect(path)
        asked.request("GET", "/healthz")
        return {"status": asked.getresponse().status, "error": ""}
    except (OSError, http.client.HTTPException) as error:
        return {
            "status": None,
            "error": getattr(error, "strerror", None) or str(error) or type(error).__name__,
        }
    finally:
        asked.close()


def probes(options: Options) -> dict[str, dict[str, Any]]:
    """Return what module site_probe says of each target, by name."""
    targets = [read_target(values, options.timeout) for values in options.targets]
    return {result.name: asdict(result) for result in probe(targets)}


def disk() -> list[dict[str, Any]]:
    """Return size and room in bytes of each file system that is written to, with its free inodes' share."""
    found: dict[int, dict[str, Any]] = {}
    for path in ("/", "/var/lib/docker", "/var/log/nginx", "/tmp"):  # noqa: S108
        try:
            usage, device = os.statvfs(path), os.stat(path).st_dev  # noqa: PTH116
        except OSError:
            continue
        found.setdefault(
            device,
            {
                "path": path,
                "size": usage.f_blocks * usage.f_frsize,
                "free": usage.f_bavail * usage.f_frsize,
                "inodes_free": usage.f_favail / usage.f_files if usage.f_files else 1.0,
            },
        )
    return list(found.values())


def files(options: Options) -> dict[str, dict[str, int]]:
    """Return the open files and the limit of nginx's fullest worker, or its connections', and of the api."""
    wanted = {"nginx": "nginx: worker process", "api": "app.main"}
    found: dict[str, dict[str, int]] = {}
    for pid, words in _processes():
        for name, sign in wanted.items():
            # The api's init process carries the same words after its own name.
            if not any(word.startswith(sign) for word in words) or "init" in words[0]:
                continue
            try:
                count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                limits = Path(f"/proc/{pid}/limits").read_text()
            except OSError:
                continue
            limit = re.search(r"Max open files\s+(\d+)", limits)
            if limit:
                now = {"open": count, "limit": int(limit[1])}
                kept = found.get(name, now)
                found[name] = max(kept, now, key=lambda item: item["open"] / item["limit"])
    if "nginx" in found:
        with suppress(Missing):
            connections = nginx_facts(options)["worker_connections"]
            found["nginx"]["limit"] = min(found["nginx"]["limit"], connections)
    return found


def firewall(deadline: Deadline) -> dict[str, Any]:
    """Return the rule set that the kernel has, without Docker's own."""
    shown = run(["nft", "--json", "list", "ruleset"], deadline)
    if shown.returncode:
        raise Missing(f"nft can't list the rules: {last_lines(shown.stderr)}.")
    return {"nftables": json.loads(shown.stdout).get("nftables", [])}


def nginx_log() -> dict[str, Any]:
    """Return the last lines of nginx's error log, and how old the file's last change is, in seconds."""
    file = Path("/var/log/nginx/error.log")
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            opened.seek(max(0, size - 65_536))
            lines = last_lines(opened.read().decode(errors="replace"))
        return {"lines": lines, "age": time.time() - file.stat().st_mtime}
    except OSError as error:
        raise Missing(f"{file} can't be read: {error.strerror}.") from error


# What nginx writes when it turns somebody away, and how status shows it.
REFUSALS = (
    (re.compile(r'limiting requests.* by zone "(\w+)"'), "{} (429)"),
    (re.compile(r'limiting connections by zone "(\w+)"'), "{} (429)"),
    (re.compile(r"worker_connections are not enough"), "no free connection of nginx"),
    (re.compile(r"Too many open files"), "no free file of nginx"),
    (re.compile(r"connect\(\) to \S+ failed \(\d+: ([^)]+)\)"), "api not reached: {} (502)"),
    (re.compile(r"upstream timed out"), "api not in time (504)"),
)
LOG_TAIL = 4 << 20  # bytes of nginx's log that are read for refusals
HOUR = 3600


def refused() -> dict[str, int]:
    """Return how many requests nginx turned away within the last hour, by reason."""
    file = Path("/var/log/nginx/error.log")
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - LOG_TAIL))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise Missing(f"{file} can't be read: {error.strerror}.") from error
    return count_refusals(lines, datetime.datetime.now().astimezone())


def count_refusals(lines: list[str], now: datetime.datetime) -> dict[str, int]:
    """Return the refusals of the hour before `now` by reason, most frequent first; nginx's time is local."""
    found: Counter[str] = Counter()
    for line in lines:
        try:
            moment = datetime.datetime.strptime(line[:19], "%Y/%m/%d %H:%M:%S").astimezone()
        except ValueError:
            continue  # the rest of a line that was cut
        if (now - moment).total_seconds() > HOUR:
            continue
        for pattern, reason in REFUSALS:
            if seen := pattern.search(line):
                found[reason.format(*seen.groups())] += 1
                break
    return dict(found.most_common())


def addresses(deadline: Deadline) -> list[str]:
    """Return the server's own addresses, less loopback and link-local ones."""
    shown = json.loads(run(["ip", "-json", "address", "show", "scope", "global"], deadline).stdout or "[]")
    return [each["local"] for link in shown for each in link.get("addr_info", []) if "local" in each]


# The compose project.


def stack(options: Options, deadline: Deadline) -> dict[str, Datum]:
    """Return the data on the compose project's containers."""
    state = containers(options, deadline)
    ids = {name: one["id"] for name, one in state.items() if one["state"] == "running"}

    def of(name: str) -> str:
        if name not in ids:
            raise Missing(f"container {name} does not run.")
        return str(ids[name])

    inner = gather(
        {
            "redis": lambda: redis(of("redis"), deadline),
            "worker": lambda: worker(of("redis"), deadline),
            "canary": lambda: canary(options, of("worker"), of("redis"), deadline),
            "app_logs": lambda: app_logs(state, deadline),
            "sockets": lambda: sockets(state),
        },
        Deadline(deadline.left() - 0.3),
    )
    return {"containers": {"value": state}, **inner}


def containers(options: Options, deadline: Deadline) -> dict[str, dict[str, Any]]:
    """Return the state of each service's container, by the service's name."""
    label = f"label=com.docker.compose.project.working_dir={options.compose_dir}"
    listed = run(["docker", "ps", "--all", "--quiet", "--filter", label], deadline)
    if listed.returncode:
        raise Missing(f"Docker does not answer: {' '.join(last_lines(listed.stderr))}")
    if not listed.stdout.split():
        return {}
    inspected = json.loads(run(["docker", "inspect", *listed.stdout.split()], deadline).stdout or "[]")
    found: dict[str, dict[str, Any]] = {}
    for one in inspected:
        labels, state = one["Config"]["Labels"], one["State"]
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        variables = dict(entry.split("=", 1) for entry in one["Config"].get("Env") or [] if "=" in entry)
        said = {
            "id": one["Id"],
            "pid": state["Pid"],
            "image": one["Config"]["Image"],
            "state": state["Status"],
            "health": state.get("Health", {}).get("Status", "none"),
            "health_says": last_lines(
                "\n".join(
                    entry["Output"].strip() for entry in (state.get("Health", {}).get("Log") or [])[-1:]
                )
            ),
            "exit_code": state["ExitCode"],
            "out_of_memory": state["OOMKilled"],
            "restarts": one["RestartCount"],
            "started": _moment(state["StartedAt"]),
            "finished": _moment(state["FinishedAt"]),
            "variables": {name: variables[name] for name in OPEN_VARIABLES if name in variables},
        }
        # In the middle of a deployment the old and the new one are there; a running one counts.
        kept = found.get(labels["com.docker.compose.service"])
        if kept is None or kept["state"] != "running":
            found[labels["com.docker.compose.service"]] = said
    return found


def _moment(text: str) -> float | None:
    """Return Docker's time in Unix seconds, or None for its zero."""
    if text.startswith("0001"):
        return None
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", text)).timestamp()


def sockets(state: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the connections that the api's container has on its port and its unix socket at this moment."""
    pid = state.get("api", {}).get("pid")
    if not pid:
        raise Missing("container api does not run.")
    net = Path(f"/proc/{pid}/net")
    tcp = [
        line.split()[1:4] for name in ("tcp", "tcp6") for line in (net / name).read_text().splitlines()[1:]
    ]
    # A connection has its listener's path, and is of the network that it came from: nginx's, which is ours.
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{API_PORT:04X}") and state == "01" for local, _, state in tcp) + sum(
        len(words) > 7 and words[7].startswith(API_SOCKETS) and words[5] == "03" for words in unix
    )


def redis(container: str, deadline: Deadline) -> dict[str, Any]:
    """Return what Redis says of itself, asked from inside its container; nothing when it hangs."""
    command = ["timeout", "3", "docker", "exec", "-i", container, "redis-cli"]
    asked = run(command, deadline, text="PING\nINFO\n")
    said = asked.stdout
    info = dict(re.findall(r"^(\w+):([^\r\n]*)", said, re.MULTILINE))
    answer = said.partition("\n")[0].strip() or " ".join(last_lines(asked.stderr))
    return {"ping": answer, "info": {name: info[name] for name in INFO if name in info}}


def worker(container: str, deadline: Deadline) -> dict[str, Any]:
    """Return the seconds since a worker was seen last, None for never, and how many jobs wait."""
    asked = run(
        ["docker", "exec", "-i", container, "redis-cli"],
        deadline,
        text="TIME\nZREVRANGE dramatiq:__heartbeats__ 0 0 WITHSCORES\nLLEN dramatiq:cvs\n",
    )
    lines = asked.stdout.split()
    if len(lines) < 3 or not lines[0].isdecimal():
        raise Missing(f"Redis does not answer: {' '.join(last_lines(asked.stdout + asked.stderr))}")
    seen = float(lines[-2]) / 1000 if len(lines) > 4 else None
    return {"seen": None if seen is None else float(lines[0]) - seen, "waiting": int(lines[-1])}


def canary(options: Options, worker_id: str, redis_id: str, deadline: Deadline) -> dict[str, Any]:
    """Return how an event that the worker publishes reaches a socket of the api, in milliseconds.

    It goes to the probe's own person, whom nobody else is.
    """
    if websocket is None:
        raise Missing("websocket-client is not installed on the server.")
    nonce = secrets.token_hex(8)
    url = f"ws://127.0.0.1:{options.api_port}{options.websocket_path}{options.user_id}"
    client = websocket.WebSocket()
    found: dict[str, Any] = {"published_on": None, "listened_to": [], "received_ms": None, "error": ""}
    try:
        client.connect(  # type: ignore[no-untyped-call]
            url, origin=options.origin, cookie=options.cookie or None, timeout=deadline.left(options.timeout)
        )
        client.send("ping")
        # The pong tells that the api has subscribed: it does so before it lets anybody in.
        if "pong" not in str(client.recv()):
            raise Missing("the api closed the socket, or said something else than pong.")
    except Missing:
        raise
    except Exception as error:
        # Its own text may hold the answer's headers, cookies among them.
        raise Missing(f"no socket of the api was open to receive it ({type(error).__name__}).") from None
    try:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        event = json.dumps({"type": "canary", "time": now, "nonce": nonce}, separators=(",", ":"))
        start = time.monotonic()
        asked = gather(
            {
                "channels": lambda: run(
                    ["docker", "exec", "-i", redis_id, "redis-cli"],
                    deadline,
                    text=f"PUBSUB CHANNELS *{options.user_id}*\n",
                ),
                "published": lambda: run(
                    ["docker", "exec", "-i", worker_id, "python", "-c", CANARY, options.user_id, event],
                    deadline,
                ),
            },
            deadline,
        )
        if "value" in asked["channels"]:
            found["listened_to"] = asked["channels"]["value"].stdout.split()
        if "missing" in asked["published"]:
            raise Missing(asked["published"]["missing"])
        published = asked["published"]["value"]
        if published.returncode:
            found["error"] = " ".join(last_lines(published.stderr)[-1:])
            return found
        found["published_on"] = published.stdout.strip()
        client.settimeout(deadline.left(1.5))
        while nonce not in str(client.recv()):
            pass
        # It holds the start of a Python process, too; verify measures the way alone.
        found["received_ms"] = round((time.monotonic() - start) * 1000)
    except (websocket.WebSocketException, OSError):
        pass  # not received, which the document says
    finally:
        client.shutdown()  # type: ignore[no-untyped-call]
    return found


def app_logs(state: Mapping[str, Mapping[str, Any]], deadline: Deadline) -> dict[str, list[str]]:
    """Return the last lines that each container logged, redacted."""

    def ask(container: str) -> list[str]:
        shown = run(["docker", "logs", "--tail", "20", container], deadline)
        return last_lines(shown.stdout + shown.stderr)

    asked = gather({name: partial(ask, one["id"]) for name, one in state.items()}, Deadline(deadline.left(3)))
    return {name: datum.get("value", [datum.get("missing", "")]) for name, datum in asked.items()}
