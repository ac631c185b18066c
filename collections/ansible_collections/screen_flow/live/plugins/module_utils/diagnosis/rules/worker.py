"""Faults of the worker, which reads the CVs and publishes each step."""

from __future__ import annotations

from ..engine import Evidence, rule
from .stack import DEPLOY_STACK, stopped

SILENCE = 20  # seconds; a worker sends Redis a heartbeat about every second


@rule("nothing_is_processed", DEPLOY_STACK, explained_by=("docker_stopped",), deploys=True)
def worker_stopped(e: Evidence) -> str | None:
    """The worker's container is not running, so uploads wait."""
    sentence = stopped(e, "worker")
    waiting = e["server.worker.waiting"]
    return f"{sentence[:-1]}; {waiting} jobs wait." if sentence and waiting else sentence


@rule(
    "nothing_is_processed",
    "docker compose logs worker has the reason; docker compose restart worker helps for now.",
    explained_by=("redis", "worker_stopped", "docker_stopped"),
    deploys=True,
)
def worker_silent(e: Evidence) -> str | None:
    """The worker's container runs, but sends Redis no heartbeat."""
    worker = e["server.worker"]
    if not e.is_running("worker") or worker is None:
        return None
    if worker["seen"] is None or worker["seen"] > SILENCE:
        last = (
            "has sent no heartbeat"
            if worker["seen"] is None
            else f"sent its last heartbeat {worker['seen']:.0f} s ago"
        )
        return f"the worker runs, but {last}; {worker['waiting']} jobs wait."
    return None


@rule(
    "nothing_is_processed",
    "docker compose logs extractor has the reason; docker compose restart extractor helps for now. CVs wait.",
    explained_by=("docker_stopped",),
    deploys=True,
)
def extractor_down(e: Evidence) -> str | None:
    """The extractor's container is stopped or fails its health check, so CVs wait."""
    container = e.container("extractor")
    if container is None:
        return None
    if container["state"] == "running" and container["health"] == "unhealthy":
        return f"the extractor runs, but reads no CV: {' '.join(container['health_output'])}"
    return stopped(e, "extractor")


@rule(
    "changes_only_after_refresh",
    "Run the same version of worker and api: ansible-playbook site.yml --tags app_stack. A backend of your "
    "own publishes on user:ID:events (docs/contract.md).",
)
def other_channel(e: Evidence) -> str | None:
    """Events go to a channel that no socket subscribes to."""
    published, subscribed = e["server.canary.published_on"], e["server.canary.subscribed_to"]
    if not published or not subscribed or published in subscribed:
        return None
    return f"the worker publishes events on {published}, but the api subscribes to {', '.join(subscribed)}."
