#!/usr/bin/python
"""Ansible module: run a command for a while and show what it prints, redacted, as it comes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: follow
short_description: Show a command's output while it runs
description:
  - Runs a command that only reads, such as one that follows a log, for at most O(seconds), and shows its
    lines on the terminal about a second after they are printed.
  - What looks like a secret or an e-mail address is taken out on the server; see RV(lines).
  - Ctrl-C ends the playbook; the command then ends by itself when O(seconds) have passed.
  - Because the command only reads, it runs in check mode too.
options:
  argv:
    description: The command and its arguments. It is not run through a shell.
    type: list
    elements: str
    required: true
  chdir:
    description: Folder to run it in.
    type: path
  seconds:
    description: How long it may run.
    type: int
    default: 60
  match:
    description: Regular expression; lines without a match are not shown. Empty for all.
    type: str
    default: ""
  phase:
    description: For the action plugin of the same name, which calls the module again and again.
    type: str
    choices: [start, read, stop]
    default: start
  job:
    description: For the action plugin. The folder that V(start) made.
    type: path
  offset:
    description: For the action plugin. Bytes of the output that were read before.
    type: int
    default: 0
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Follow the api's log
  screen_flow.live.follow:
    argv: [docker, compose, logs, --follow, --no-color, api]
    chdir: /opt/screen-flow
    match: WebSocket
    seconds: 30
"""

RETURN = r"""
lines:
  description: The lines that were shown, each cut to 300 characters, secrets and e-mail addresses taken out.
  type: list
  elements: str
  returned: always
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.document import redact

PREFIX = "follow-"
# Bounded by itself, and its folder goes with it, also when nobody comes back for it.
SCRIPT = """
job=$1 seconds=$2; shift 2
timeout "$seconds" "$@" >"$job/output" 2>&1
touch "$job/ended"
sleep 30
rm -rf "$job"
"""


def start(argv: list[str], chdir: str | None, seconds: int) -> Path:
    """Start the command in a session of its own and return the folder that its output goes to."""
    job = Path(tempfile.mkdtemp(prefix=PREFIX))
    (job / "output").touch()
    child = subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", SCRIPT, "follow", str(job), str(seconds), *argv],
        cwd=chdir,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (job / "pid").write_text(str(child.pid))
    return job


def read(job: Path, offset: int, match: str) -> tuple[list[str], int, bool]:
    """Return the whole lines after `offset`, redacted; the new offset; and whether that was all."""
    # Asked first: what is printed between the two looks is then read by the next one.
    ended = (job / "ended").exists()
    with (job / "output").open("rb") as output:
        output.seek(offset)
        new = output.read()
    if not ended:
        new = new[: new.rfind(b"\n") + 1]
    found = new.decode(errors="replace").splitlines()
    return [redact(line) for line in found if re.search(match, line)], offset + len(new), ended


def stop(job: Path) -> None:
    """End the command if it still runs, and remove its folder."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it ended by itself
        os.killpg(int((job / "pid").read_text()), signal.SIGTERM)
    shutil.rmtree(job, ignore_errors=True)


def main() -> None:
    """Entry point: one phase."""
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "chdir": {"type": "path"},
            "seconds": {"type": "int", "default": 60},
            "match": {"type": "str", "default": ""},
            "phase": {"type": "str", "choices": ["start", "read", "stop"], "default": "start"},
            "job": {"type": "path"},
            "offset": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    inputs = module.params
    if inputs["seconds"] <= 0:
        module.fail_json(msg=f"seconds is {inputs['seconds']}; give a number above 0.")
    try:
        re.compile(inputs["match"])
    except re.error as error:
        module.fail_json(msg=f"match is '{inputs['match']}': {error}; give a regular expression.")
    if inputs["phase"] == "start":
        try:
            job = start(inputs["argv"], inputs["chdir"], inputs["seconds"])
        except OSError as error:
            module.fail_json(msg=f"chdir is '{inputs['chdir']}', and nothing can be run there: {error}.")
        module.exit_json(changed=False, job=str(job), lines=[])
    job = Path(inputs["job"])
    if inputs["phase"] == "stop":
        stop(job)
        module.exit_json(changed=False, lines=[])
    try:
        lines, offset, ended = read(job, inputs["offset"], inputs["match"])
    except FileNotFoundError:
        module.fail_json(msg=f"{job} is gone: somebody cleared the server's temporary folder. Run it again.")
    module.exit_json(changed=False, lines=lines, offset=offset, ended=ended)


if __name__ == "__main__":
    main()
