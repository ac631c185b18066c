"""Ansible action: show a command's output while it runs, which a module alone can't; see module follow."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
PAUSE = 0.5  # seconds between two looks at the output


class ActionModule(ActionBase):  # type: ignore[misc]
    """Starts the command by the module, shows its lines as they come, and clears up after it."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result, with all lines that were shown."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)

        def ask(**more: Any) -> dict[str, Any]:
            return dict(
                self._execute_module("screen_flow.live.follow", {**arguments, **more}, task_vars=task_vars)
            )

        started = ask(phase="start")
        if started.get("failed"):
            return result | started
        lines: list[str] = []
        offset = 0
        try:
            while True:
                found = ask(phase="read", job=started["job"], offset=offset)
                if found.get("failed"):
                    return result | found
                for line in found["lines"]:
                    display.display(line)
                lines += found["lines"]
                offset = found["offset"]
                if found["ended"]:
                    break
                time.sleep(PAUSE)
        finally:
            ask(phase="stop", job=started["job"])
        return result | {"changed": False, "lines": lines}
