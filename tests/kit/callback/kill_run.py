"""Ansible callback plugin: ends a run by SIGKILL at one of its tasks, as a lost control node would."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_run
type: aggregate
short_description: End a run by SIGKILL at one of its tasks
description:
  - KILL_RUN_AT is the task, by its number from 1 or by its name, whose first occurrence counts.
  - KILL_RUN_WHEN is V(end), after the task succeeded, or the seconds after its start.
  - KILL_RUN_LOG is a file to which the name of each started task is appended.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Kills its own process group, so the caller starts the run in a new one."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_run"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._at, self._when = os.environ.get("KILL_RUN_AT", ""), os.environ.get("KILL_RUN_WHEN", "0")
        self._log = os.environ.get("KILL_RUN_LOG", "")
        self._count = 0
        self._is_armed = False

    def _start(self, task: Any) -> None:
        self._count += 1
        name = task.get_name()
        if self._log:
            with Path(self._log).open("a") as log:
                log.write(f"{name}\n")
        if self._is_armed or self._at not in (str(self._count), name):
            return
        self._is_armed = True
        if self._when != "end":
            threading.Timer(float(self._when), self._kill).start()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._start(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._start(task)

    def v2_runner_on_ok(self, result: Any) -> None:
        if self._is_armed and self._when == "end":
            self._kill()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.v2_runner_on_ok(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self.v2_runner_on_ok(result)

    def _kill(self) -> None:
        os.killpg(os.getpgrp(), signal.SIGKILL)
