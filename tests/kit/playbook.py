"""Runs playbooks of this repository, and reads how many tasks changed something."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kit.process import REPOSITORY

Run = subprocess.CompletedProcess[str]


def run_playbook(
    playbook: str | Path,
    *options: str,
    inventory: str | Path = "inventories/demo",
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    new_group: bool = False,
    **variables: Any,
) -> Run:
    """Run a playbook with these extra variables; return the finished process, whatever its status.

    Paths are relative to the repository; `timeout` is in seconds; `new_group` puts it into a process group of
    its own.
    """
    return subprocess.run(
        (
            "ansible-playbook", f"--inventory={inventory}",
            f"--extra-vars={json.dumps(variables)}", *options, playbook,
        ),
        cwd=REPOSITORY,
        env=os.environ
        | {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        | dict(environment or {}),
        stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True, timeout=timeout,
        process_group=0 if new_group else None,
    )  # fmt: skip


def recap(output: str) -> list[dict[str, int]]:
    """Return the counts of PLAY RECAP, one mapping per host. Raises AssertionError where there is none."""
    lines = output.partition("PLAY RECAP")[2].splitlines()
    hosts = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in lines if "changed=" in line]
    assert hosts, output
    return [{name: int(number) for name, number in host.items()} for host in hosts]


def changed(output: str) -> int:
    """Return how many tasks changed something, over all hosts of PLAY RECAP."""
    return sum(host["changed"] for host in recap(output))


def words(text: str) -> str:
    """Return the text on one line: Ansible breaks messages anywhere."""
    return " ".join(text.split())
