"""Ansible action: show a command's output while it runs, which a module alone can't; see module follow."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

POLL_SECONDS = 0.5


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """Starts the command with the module, shows its lines as they come, and stops it."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, with all lines that were shown."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)

        def call(**phase: Any) -> dict[str, Any]:
            return dict(
                self._execute_module("screen_flow.live.follow", {**arguments, **phase}, task_vars=task_vars)
            )

        started = call(phase="start")
        if started.get("failed"):
            return result | started
        display = Display()
        lines: list[str] = []
        offset = 0
        try:
            while True:
                output = call(phase="read", job=started["job"], offset=offset)
                if output.get("failed"):
                    return result | output
                for line in output["lines"]:
                    display.display(line)
                lines += output["lines"]
                offset = output["offset"]
                if output["ended"]:
                    break
                time.sleep(POLL_SECONDS)
        finally:
            call(phase="stop", job=started["job"])
        return result | {"changed": False, "lines": lines}
