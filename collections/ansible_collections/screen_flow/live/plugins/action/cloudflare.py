"""Ansible action: show the progress of a Cloudflare module while it runs.

Ansible shows a module's output when the module ends, but a wait for the rate limit can take minutes. So the
module gets a file, and each line that it writes there is shown at once. meta/runtime.yml routes the modules
`cloudflare_*` through this plugin.
"""

from __future__ import annotations

import tempfile
import threading
from typing import IO, Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

POLL_SECONDS = 0.5


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """Runs the module of the task's own name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        # A file on another machine can't be read here; there, the module reports its waits at its end.
        if self._connection.transport != "local" or "progress_file" in arguments:
            result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            return result
        host = (task_vars or {}).get("inventory_hostname", "localhost")
        ended = threading.Event()
        with tempfile.NamedTemporaryFile("r", prefix="cloudflare-progress-") as lines:
            watch = threading.Thread(target=self._show, args=(lines, host, ended), daemon=True)
            watch.start()
            try:
                arguments["progress_file"] = lines.name
                result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            finally:
                ended.set()
                watch.join()
        return result

    def _show(self, lines: IO[str], host: str, ended: threading.Event) -> None:
        """Show each line that appears in the file, until the module has ended."""
        display = Display()
        while not ended.wait(POLL_SECONDS):
            for line in lines:
                display.display(f"{host}: {line.rstrip()}")
