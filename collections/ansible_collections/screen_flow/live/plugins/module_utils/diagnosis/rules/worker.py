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
    """The canary's CV was processed, and its event did not come: it goes to a channel without subscriber."""
    if not e["server.canary.done_unreported"]:
        return None
    published, subscribed = (
        set(e[f"server.canary.{name}"] or ()) for name in ("published_on", "subscribed_to")
    )
    sentence = "CVs are processed, but a socket of the api does not receive their events"
    # A backend that subscribes by patterns has no channel here.
    if subscribed and published - subscribed:
        return (
            f"{sentence}: they are published on {', '.join(sorted(published - subscribed))}, but the api "
            f"subscribes to {', '.join(sorted(subscribed))}."
        )
    return f"{sentence}."


@rule("nothing_is_processed", DEPLOY_STACK, explained_by=("docker_stopped",), deploys=True)
def service_stopped(e: Evidence) -> str | None:
    """A further service of the project (app_stack_services) is not running."""
    further = sorted(set(e.expect("services")) - {"api", "worker", "extractor", "redis"})
    return next((sentence for name in further if (sentence := stopped(e, name))), None)
