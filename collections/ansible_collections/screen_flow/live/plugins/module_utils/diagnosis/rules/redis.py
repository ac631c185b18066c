"""Faults of Redis, which carries events and jobs."""

from __future__ import annotations

from ..engine import Evidence, rule
from .stack import DEPLOY_STACK, stopped

# Redis's codes for a refused user or command (https://redis.io/docs/latest/develop/reference/protocol-spec/).
ACCESS_CODES = ("NOAUTH", "WRONGPASS", "NOPERM")


@rule("redis_is_down", DEPLOY_STACK, explained_by=("docker_stopped",), deploys=True)
def redis_stopped(e: Evidence) -> str | None:
    """The container of Redis is not running."""
    return stopped(e, "redis")


@rule(
    "redis_is_full",
    "Raise Redis's maxmemory, or delete keys that are not the site's. No event is stored until then.",
)
def redis_full(e: Evidence) -> str | None:
    """Redis is at its memory limit and may not evict, so it refuses every write."""
    info = e["server.redis.info"] or {}
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    refused = e["server.redis.write_code"] == "OOM"
    if refused or (limit and used >= limit and info.get("maxmemory_policy") == "noeviction"):
        return f"Redis is full: it uses {used} of {limit} bytes and refuses writes."
    return None


@rule(
    "redis_is_full",
    "playbooks/remove_user.yml shows who holds most. Or raise app_stack_redis_megabytes, or free disk space.",
    explained_by=("redis_full", "disk_full"),
)
def storage_full(e: Evidence) -> str | None:
    """The api refuses uploads while there is still room to finish those that were accepted."""
    if e["server.ready.storage"] != "full":
        return None
    info = e["server.redis.info"] or {}
    return (
        "storage is full, so uploads get 503 until others are processed or removed: Redis uses "
        f"{info.get('used_memory', '?')} of {info.get('maxmemory', '?')} bytes."
    )


@rule("redis_is_full", "Free space on the server's disk, then run docker compose restart redis.")
def redis_can_not_save(e: Evidence) -> str | None:
    """Redis failed to write its file, and therefore refuses every write."""
    status = e["server.redis.info.aof_last_write_status"]
    if status not in (None, "ok") or e["server.redis.write_code"] == "MISCONF":
        return "Redis can't write its file to the disk, so it refuses to store events."
    return None


@rule(
    "redis_password_is_wrong",
    "Run ansible-playbook site.yml --tags app_stack: it gives Redis the passwords of api and worker.",
    explained_by=("redis_stopped",),
)
def redis_password(e: Evidence) -> str | None:
    """Redis refuses the password of the api, the worker or redis-cli."""
    codes = {
        "api": [e["server.ready.redis_code"]],
        "worker": [],
        "redis-cli": [e["server.redis.code"]],
    }
    for name in ("api", "worker"):
        # Health output and log describe the present only while the container is neither stopped nor healthy.
        container = e.container(name)
        if container and container["state"] != "exited" and container["health"] != "healthy":
            codes[name] += [container["redis_code"], e[f"server.app_logs.{name}.redis_code"]]
    refused = [name for name, found in codes.items() if any(code in ACCESS_CODES for code in found)]
    return f"Redis refuses the password of {' and '.join(refused)}." if refused else None


@rule(
    "redis_is_down",
    "docker compose logs redis has the reason; docker compose restart redis helps for now.",
    explained_by=("redis_stopped", "redis_password", "docker_stopped"),
    deploys=True,
)
def redis_silent(e: Evidence) -> str | None:
    """The container runs, but Redis does not answer PING."""
    if not e.is_running("redis"):
        return None
    reply = e["server.redis.ping"]
    if reply in ("PONG", None):
        return None
    return (
        f"Redis runs, but answers PING with {reply!r}." if reply else "Redis runs, but does not answer PING."
    )


@rule(
    "redis_is_down",
    "docker compose logs api has the reason. If app_stack_redis_url is set, check that Redis and "
    "vault_app_stack_redis_password from this server.",
    explained_by=("redis", "worker", "api", "docker_stopped"),
    symptom=True,
    deploys=True,
)
def not_ready(e: Evidence) -> str | None:
    """The api runs and reports that it can't reach Redis, for a reason that no other rule knows."""
    ready = e["server.ready"] or {}
    if ready.get("healthz") == 200 and ready.get("readyz") == 503:
        return "the api runs, but /readyz returns 503: Redis or its events are not available to it."
    return None
