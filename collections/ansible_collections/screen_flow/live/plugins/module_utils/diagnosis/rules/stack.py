"""What the rules of the compose project's services share; not a layer."""

from __future__ import annotations

from ..engine import Evidence

DEPLOY_STACK = "Run ansible-playbook site.yml --tags app_stack: it starts all services and waits for health."


def stopped(e: Evidence, name: str) -> str | None:
    """Return the sentence for a service whose container is not running, or None."""
    containers = e["server.containers"]
    if containers is None or e.is_running(name) or name not in e.expect("services"):
        return None
    container = containers.get(name)
    if container is None:
        return f"there is no container {name}."
    if container["state"] == "restarting":
        return f"{name} exits repeatedly (exit code {container['exit_code']})."
    memory = ", killed for lack of memory" if container["out_of_memory"] else ""
    return f"{name} is stopped ({container['state']}, exit code {container['exit_code']}{memory})."
