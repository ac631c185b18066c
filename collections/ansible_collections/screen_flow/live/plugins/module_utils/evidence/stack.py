"""The compose project on the server: its containers, Redis, worker and api."""

from __future__ import annotations

import datetime
import http.client
import json
import re
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..probe.stages import Result, StageError, open_socket, ping
from ..probe.target import Target
from .canary import Sender, ends_a_cv, file_name, is_done, upload
from .document import Datum, Missing, last_lines
from .gather import Deadline, gather, run

try:
    import websocket
except ImportError:
    websocket = None  # type: ignore[assignment]

MEMBERS = ("containers", "redis", "worker", "canary", "app_logs", "sockets")
# Where the api listens inside its container (docs/contract.md).
API_PORT = 8000
API_SOCKETS = "/run/screen-flow/"
# A container's environment contains secrets too; these variables are none.
OPEN_VARIABLES = (
    "APP_HEARTBEAT_SECONDS", "APP_ALLOWED_ORIGINS", "APP_LOG_LEVEL", "APP_DEMO_SIGN_IN",
    "APP_SESSION_JWKS_URL",
)  # fmt: skip
INFO = (
    "redis_version", "uptime_in_seconds", "connected_clients", "maxclients", "used_memory", "maxmemory",
    "maxmemory_policy", "rdb_last_bgsave_status", "aof_last_write_status", "aof_enabled", "role", "loading",
    "rejected_connections", "evicted_keys",
)  # fmt: skip
# How a refused password or user appears in text of redis-cli 7 and 8 (the reply's code) and of redis-py 8
# (its exception's name, or the message that is left when it has taken the code off), with the code of the
# reply.
REFUSALS = (
    (re.compile(r"\b(WRONGPASS|NOAUTH|NOPERM)\b"), ""),
    (re.compile(r"\bAuthenticationError\b|invalid username-password"), "WRONGPASS"),
    (re.compile(r"\bNoPermissionError\b"), "NOPERM"),
)
# A write of the probe's user; a full Redis refuses it.
WRITE = "SET user:site-check:diagnosis 1 PX 1000"
PUBLISHED = re.compile(r"^pmessage\n.*\n(.*)$", re.MULTILINE)  # redis-cli's lines, with the channel as third
PATIENCE = 2.5  # seconds for the canary's CV to be processed
STEP = 0.6  # seconds without an event after which the api is queried whether it is
LAST = 0.3  # seconds in which an event arrives that was sent before the api's answer
RECENT = 5  # lines of a log that describe the present


def redis_code(text: str) -> str | None:
    """Return the code of Redis's reply that refused a user or password, from a client's output, or None."""
    for pattern, code in REFUSALS:
        if found := pattern.search(text):
            return code or found[1]
    return None


@dataclass(frozen=True)
class Project:
    """A compose project: its directory, its services, and whether its backend is the reference one."""

    directory: str
    services: Collection[str]
    reference: bool


def stack(
    project: Project, api: Target, sender: Sender, user_id: str, deadline: Deadline
) -> dict[str, Datum]:
    """Return the data MEMBERS; `api` is the socket that receives the canary. Raises Missing."""
    state = containers(project.directory, deadline)
    ids = {name: one["id"] for name, one in state.items() if one["state"] == "running"}

    def running(name: str) -> str:
        if name not in ids:
            raise Missing(f"container {name} is not running.")
        return str(ids[name])

    inner = gather(
        {
            "redis": lambda: redis(running("redis"), deadline) if "redis" in project.services else None,
            "worker": lambda: (
                worker(running("redis"), deadline)
                if project.reference and "redis" in project.services
                else None
            ),
            "canary": lambda: round_trip(ids.get("redis"), api, sender, user_id, deadline),
            "app_logs": lambda: app_logs(state, deadline),
            "sockets": lambda: sockets(state),
        },
        Deadline(deadline.left() - 0.3),
    )
    return {"containers": {"value": state}, **inner}


def containers(compose_dir: str, deadline: Deadline) -> dict[str, dict[str, Any]]:
    """Return the state of each service's container, by the service's name; raises Missing."""
    label = f"label=com.docker.compose.project.working_dir={compose_dir}"
    listed = run(["docker", "ps", "--all", "--quiet", "--filter", label], deadline)
    if listed.returncode:
        raise Missing(f"Docker returned an error: {' '.join(last_lines(listed.stderr))}")
    if not listed.stdout.split():
        return {}
    inspected = json.loads(run(["docker", "inspect", *listed.stdout.split()], deadline).stdout or "[]")
    found: dict[str, dict[str, Any]] = {}
    for one in inspected:
        labels = one["Config"]["Labels"]
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        # During a deployment the old and the new container exist; a running one counts.
        kept = found.get(labels["com.docker.compose.service"])
        if kept is None or kept["state"] != "running":
            found[labels["com.docker.compose.service"]] = _container(one)
    return found


def _container(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence that `docker inspect` has of one container."""
    state = one["State"]
    checks = state.get("Health", {}).get("Log") or []
    output = "\n".join(check["Output"].strip() for check in checks[-1:])
    variables = dict(entry.split("=", 1) for entry in one["Config"].get("Env") or [] if "=" in entry)
    return {
        "id": one["Id"],
        "pid": state["Pid"],
        "image": one["Config"]["Image"],
        "state": state["Status"],
        "health": state.get("Health", {}).get("Status", "none"),
        "health_output": last_lines(output),
        "redis_code": redis_code(output),
        "exit_code": state["ExitCode"],
        "out_of_memory": state["OOMKilled"],
        "restarts": one["RestartCount"],
        "started": _moment(state["StartedAt"]),
        "finished": _moment(state["FinishedAt"]),
        "variables": {name: variables[name] for name in OPEN_VARIABLES if name in variables},
    }


def _moment(text: str) -> float | None:
    """Return Docker's time in Unix seconds, or None for its zero."""
    if text.startswith("0001"):
        return None
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", text)).timestamp()


def sockets(state: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many connections the api's container has on its port and its unix socket; raises Missing."""
    pid = state.get("api", {}).get("pid")
    if not pid:
        raise Missing("container api is not running.")
    # By hand: psutil reads its own network namespace alone, and not the state of unix sockets.
    net = Path(f"/proc/{pid}/net")
    tcp = [
        line.split()[1:4] for name in ("tcp", "tcp6") for line in (net / name).read_text().splitlines()[1:]
    ]
    # A connection has its listener's path, and belongs to the namespace that it came from: nginx's, the
    # host's.
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{API_PORT:04X}") and state == "01" for local, _, state in tcp) + sum(
        len(words) > 7 and words[7].startswith(API_SOCKETS) and words[5] == "03" for words in unix
    )


def ready(api_port: int, timeout: float) -> dict[str, Any]:
    """Return the statuses of the api's /healthz and /readyz, and what the latter reports of its parts."""

    def request(path: str) -> tuple[int | None, str]:
        connection = http.client.HTTPConnection("127.0.0.1", api_port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read(500).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()

    found = gather(
        {"healthz": lambda: request("/healthz"), "readyz": lambda: request("/readyz")}, Deadline(timeout)
    )
    (healthz, _), (readyz, body) = (found[name].get("value", (None, "")) for name in ("healthz", "readyz"))
    return {
        "healthz": healthz,
        "readyz": readyz,
        "redis_code": redis_code(body),
        "sign_in": part_status(body, "sign_in"),
        "storage": part_status(body, "storage"),
    }


def part_status(body: str, part: str) -> str | None:
    """Return the state of a part of the api from the body of /readyz, or None."""
    try:
        status = json.loads(body).get(part)
    except (ValueError, AttributeError):
        return None
    return status if isinstance(status, str) else None


def redis(container: str, deadline: Deadline) -> dict[str, Any]:
    """Return Redis's replies to PING and a write, and parts of INFO, by redis-cli in its container.

    Raises Missing.
    """
    command = ["timeout", "3", "docker", "exec", "-i", container, "redis-cli"]
    done = run(command, deadline, text=f"PING\n{WRITE}\nINFO\n")
    info = dict(re.findall(r"^(\w+):([^\r\n]*)", done.stdout, re.MULTILINE))
    replies = [line.strip() for line in done.stdout.splitlines()[:2]] or [" ".join(last_lines(done.stderr))]
    refusal = next((found[1] for line in replies[1:] if (found := re.match(r"(OOM|MISCONF)\b", line))), None)
    return {
        "ping": replies[0],
        "code": redis_code(replies[0]),
        "write_code": refusal,
        "info": {name: info[name] for name in INFO if name in info},
    }


def worker(container: str, deadline: Deadline) -> dict[str, Any]:
    """Return the seconds since a worker's last heartbeat, None for never, and how many jobs wait.

    Of the reference backend; raises Missing.
    """
    done = run(
        ["docker", "exec", "-i", container, "redis-cli"],
        deadline,
        text="TIME\nZREVRANGE dramatiq:__heartbeats__ 0 0 WITHSCORES\nLLEN dramatiq:cvs\n",
    )
    lines = done.stdout.split()
    if len(lines) < 3 or not lines[0].isdecimal():
        raise Missing(f"Redis returned no data: {' '.join(last_lines(done.stdout + done.stderr))}")
    seen = float(lines[-2]) / 1000 if len(lines) > 4 else None
    return {"seen": None if seen is None else float(lines[0]) - seen, "waiting": int(lines[-1])}


def round_trip(
    redis_id: str | None, api: Target, sender: Sender, user_id: str, deadline: Deadline
) -> dict[str, Any]:
    """Return how the events of a canary reach a socket of the api; raises Missing.

    Where the CV was processed and the socket was not told, a second canary shows the channels in Redis.
    """
    opened = Result(api.name, api.url)
    end = time.monotonic() + deadline.left(api.limit)
    try:
        client = open_socket(api, opened, end)
        # The pong proves that the api has subscribed: it does so before it accepts a socket.
        ping(client, replace(api, healthy_close_codes=()), opened, end)
    except StageError as error:
        raise Missing(f"no socket of the api was open to receive it: {error}", error.reason) from None
    except OSError as error:
        # Its own text may contain the response's headers, cookies among them.
        raise Missing(f"no socket of the api was open to receive it ({type(error).__name__}).") from None
    try:
        found = _send(client, sender, deadline)
        # While the socket is open, since the api subscribes for it.
        return found | (channels(redis_id, sender, user_id, deadline) if found["done_unreported"] else {})
    finally:
        client.shutdown()


def _send(client: Any, sender: Sender, deadline: Deadline) -> dict[str, Any]:
    """Upload a canary and return which of its events arrive over the socket, and when."""
    nonce, start = secrets.token_hex(8), time.monotonic()
    found = upload(sender, nonce) | {"received_ms": None, "processed_ms": None, "done_unreported": False}
    batch_id = found.pop("batch_id")
    end = time.monotonic() + deadline.left(PATIENCE)
    pause, done = STEP, False
    while batch_id and found["processed_ms"] is None and time.monotonic() < end:
        client.settimeout(pause)
        try:
            message = str(client.recv())
        except websocket.WebSocketTimeoutException:
            if done:
                found["done_unreported"] = True
                break
            # Its last event may still be on the way.
            done = bool(is_done(sender, batch_id))
            pause = LAST if done else STEP
            continue
        except (websocket.WebSocketException, OSError):
            break
        if batch_id not in message:
            continue
        took = round((time.monotonic() - start) * 1000)
        found["received_ms"] = found["received_ms"] or took
        if file_name(nonce) in message and ends_a_cv(message):
            found["processed_ms"] = took
    return found


def channels(redis_id: str | None, sender: Sender, user_id: str, deadline: Deadline) -> dict[str, list[str]]:
    """Return the channels of the user that events are published on, and that are subscribed to."""
    if redis_id is None:
        return {}
    client = ["docker", "exec", "-i", redis_id, "timeout", "2", "redis-cli"]

    def subscribed_to() -> list[str]:
        return run(client, deadline, text=f"PUBSUB CHANNELS user:{user_id}*\n").stdout.split()

    def published_on() -> list[str]:
        return sorted(set(PUBLISHED.findall(run([*client, "PSUBSCRIBE", f"*:{user_id}:*"], deadline).stdout)))

    def send() -> None:
        time.sleep(0.8)  # until redis-cli has subscribed
        upload(sender, secrets.token_hex(8))

    found = gather({"subscribed_to": subscribed_to, "published_on": published_on, "sent": send}, deadline)
    return {name: found[name].get("value", []) for name in ("subscribed_to", "published_on")}


def app_logs(state: Mapping[str, Mapping[str, Any]], deadline: Deadline) -> dict[str, dict[str, Any]]:
    """Return the last lines of each container's log, redacted, and the Redis refusal in the newest."""

    def read(container: str) -> dict[str, Any]:
        shown = run(["docker", "logs", "--tail", "20", container], deadline)
        lines = last_lines(shown.stdout + shown.stderr)
        return {"lines": lines, "redis_code": redis_code("\n".join(lines[-RECENT:]))}

    found = gather(
        {name: partial(read, one["id"]) for name, one in state.items()}, Deadline(deadline.left(3))
    )
    return {
        name: datum.get("value", {"lines": [datum.get("missing", "")], "redis_code": None})
        for name, datum in found.items()
    }
