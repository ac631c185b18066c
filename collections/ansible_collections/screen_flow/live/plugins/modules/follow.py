#!/usr/bin/python
"""Ansible module: run a command for a while and show what it prints, redacted, as it comes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: follow
short_description: Show a command's output while it runs
description:
  - Runs a command that only reads, such as one that follows a log, for at most O(seconds), and shows its
    lines about a second after they are printed.
  - Secrets and e-mail addresses are removed from the lines on the server; see RV(lines).
options:
  argv:
    description: Command and arguments. No shell interprets them.
    type: list
    elements: str
    required: true
  chdir:
    description: Directory to run the command in.
    type: path
  seconds:
    description: Seconds after which the command is stopped.
    type: int
    default: 60
  match:
    description: Regular expression; lines without a match are not shown. By default, all lines are.
    type: str
    default: ""
  phase:
    description: For the action plugin, which calls the module repeatedly.
    type: str
    choices: [start, read, stop]
    default: start
  job:
    description: For the action plugin. The directory that V(start) created.
    type: path
  offset:
    description: For the action plugin. Bytes of the output that were already read.
    type: int
    default: 0
requirements:
  - setsid of util-linux and timeout of GNU coreutils, where the command runs
notes:
  - An action plugin of the same name shows the lines, so the module needs no C(async) or C(poll).
  - The command runs in its own session, with everything that it starts, and is stopped with it. If the
    playbook is interrupted (Ctrl-C), the command is stopped when O(seconds) have passed.
  - It runs in check mode too, because it must only read.
seealso:
  - module: ansible.builtin.command
extends_documentation_fragment: [screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Follow the api's log for half a minute
  screen_flow.live.follow:
    argv: [docker, compose, logs, --follow, --no-color, api]
    chdir: /opt/screen-flow
    match: WebSocket
    seconds: 30

- name: Show the kernel's messages of the next ten seconds
  screen_flow.live.follow:
    argv: [dmesg, --follow-new]
    seconds: 10
"""

RETURN = r"""
lines:
  description: The lines that were shown, each cut to 300 characters, without secrets and e-mail addresses.
  type: list
  elements: str
  returned: always
  sample: ['INFO: "WebSocket /ws/cv-processing" [accepted]', "INFO: connection open"]
"""

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.document import redact

PREFIX = "follow-"
LINGER_SECONDS = 30  # for the last read after the command's end
START_SECONDS = 10
# The script leads a session and its process group, and writes its id before the command starts, so that a
# later stop finds the whole group. timeout stays in that group (--foreground); the script stops what the
# command leaves running.
SCRIPT = """
job=$1 seconds=$2 linger=$3; shift 3
exec </dev/null >"$job/output" 2>&1
{ echo $$ >"$job/pid.new" && mv "$job/pid.new" "$job/pid"; } || exit
timeout --foreground --kill-after=5 "$seconds" "$@"
trap '' TERM
kill -TERM 0
trap - TERM
touch "$job/ended" || exit
sleep "$linger"
rm -rf "$job"
"""


def start(module: AnsibleModule, argv: list[str], chdir: str | None, seconds: int) -> Path:
    """Start the command in its own session; return the directory that holds its output and its id."""
    setsid = module.get_bin_path("setsid", required=True)
    job = Path(tempfile.mkdtemp(prefix=PREFIX))
    script = [SCRIPT, "follow", str(job), str(seconds), str(LINGER_SECONDS), *argv]
    module.run_command(
        [setsid, "--fork", "/bin/sh", "-c", *script],
        check_rc=True,
        cwd=chdir,
        expand_user_and_vars=False,
    )
    deadline = time.monotonic() + START_SECONDS
    while not (job / "pid").exists():
        if time.monotonic() > deadline:
            # Without the directory a script that is late ends before it starts the command.
            shutil.rmtree(job, ignore_errors=True)
            module.fail_json(msg=f"`{argv[0]}` did not start within {START_SECONDS} s; run it again.")
        time.sleep(0.01)
    return job


def read(job: Path, offset: int, match: str) -> tuple[list[str], int, bool]:
    """Return the complete lines after `offset`, redacted; the new offset; and whether that was the last."""
    # Checked before the read, so that output in between is left to the next call.
    ended = (job / "ended").exists()
    with (job / "output").open("rb") as output:
        output.seek(offset)
        new = output.read()
    if not ended:
        new = new[: new.rfind(b"\n") + 1]
    found = new.decode(errors="replace").splitlines()
    return [redact(line) for line in found if re.search(match, line)], offset + len(new), ended


def stop(job: Path) -> None:
    """Stop the command with everything that it started, and remove the directory."""
    # Either is missing if the command's time is over: the script removes its directory itself.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
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
        module.fail_json(msg=f"seconds is {inputs['seconds']}: use a number above 0.")
    try:
        re.compile(inputs["match"])
    except re.error as error:
        module.fail_json(msg=f"match is '{inputs['match']}' ({error}): use a regular expression.")
    if inputs["chdir"] and not os.access(inputs["chdir"], os.X_OK):
        module.fail_json(msg=f"chdir is '{inputs['chdir']}': use a directory that exists on the server.")
    if inputs["phase"] == "start":
        job = start(module, inputs["argv"], inputs["chdir"], inputs["seconds"])
        module.exit_json(changed=False, job=str(job), lines=[])
    job = Path(inputs["job"])
    if inputs["phase"] == "stop":
        stop(job)
        module.exit_json(changed=False, lines=[])
    try:
        lines, offset, ended = read(job, inputs["offset"], inputs["match"])
    except FileNotFoundError:
        module.fail_json(
            msg=f"{job} was removed from the server's temporary directory during the run; run it again."
        )
    module.exit_json(changed=False, lines=lines, offset=offset, ended=ended)


if __name__ == "__main__":
    main()
