#!/usr/bin/python
"""Ansible module: compare what a service runs with its files, so that a run finishes an interrupted one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: running_configuration
short_description: Compare what a service runs with its files
description:
  - Finds the files that changed after the service last read them. A run that was killed after it wrote a file
    and before it reloaded the service leaves such files, and so does a reload that the service refused.
  - The start of the service's process is compared with the last change of each file, so nothing is stored,
    and the result is right after a reboot, a reload by hand and a crash as well.
  - Only reads, so check mode compares the same.
options:
  unit:
    description:
      - The systemd unit, such as V(docker).
      - For V(nginx) the workers are compared, because a reload replaces them and not the main process, and
        O(files) includes the files that nginx's configuration names.
    type: str
    required: true
  files:
    description: Absolute paths of the files that the service reads when it starts or reloads.
    type: list
    elements: path
    required: true
  log:
    description: nginx's error log, which has the reason of a refused reload.
    type: path
    default: /var/log/nginx/error.log
notes:
  - A clock that was set between the two times can hide a change, or show one that was loaded.
extends_documentation_fragment: [screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Compare what nginx runs with its files
  screen_flow.live.running_configuration:
    unit: nginx
    files: [/etc/nginx/nginx.conf]
  register: running
  changed_when: running.stale | length > 0
  notify: Reload nginx

- name: Check that nginx runs its new configuration
  screen_flow.live.running_configuration:
    unit: nginx
    files: [/etc/nginx/nginx.conf]
  register: running
  until: running.stale | length == 0
  retries: 3
  delay: 1
  failed_when: running.stale | length > 0
"""

RETURN = r"""
stale:
  description: The files that changed after the service read them; empty also while it does not run.
  type: list
  elements: str
  returned: success
  sample: [/etc/nginx/nginx.conf]
refusal:
  description: nginx's last fatal message since the first of these changes, or empty.
  type: str
  returned: success
  sample: >-
    limit_req "shop" uses the "$remote_addr" key while previously it used the "$server_name" key
msg:
  description: The result as a sentence.
  type: str
  returned: success
  sample: docker runs without the changes to /etc/docker/daemon.json.
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence import running
from ..module_utils.evidence.document import Missing
from ..module_utils.evidence.gather import Deadline

RESTART = (
    "systemctl restart nginx loads a configuration that a reload can't; it closes every socket, and the "
    "clients reconnect and resume"
)


def describe(unit: str, stale: list[str], refusal: str) -> str:
    """Return the result as a sentence."""
    if not stale:
        return f"{unit} runs what is on disk."
    text = f"{unit} runs without the changes to {', '.join(stale)}"
    return f"{text}: it refused to load them: {refusal}. {RESTART}." if refusal else f"{text}."


def main() -> None:
    """Entry point: compare."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "log": {"type": "path", "default": "/var/log/nginx/error.log"},
        },
        supports_check_mode=True,
    )
    unit, files = module.params["unit"], [Path(path) for path in module.params["files"]]
    try:
        main_process = running.main_process(unit, Deadline(10))
    except Missing:
        main_process = 0  # without systemd nothing runs yet
    processes = [main_process] if main_process else []
    if unit == "nginx" and main_process:
        processes = running.nginx_workers(main_process)
        files = [path for file in files for path in running.nginx_files(file)]
    starts = [moment for process in processes if (moment := running.started(process)) is not None]
    stale = running.changed_since(min(starts), files) if starts else {}
    refusal = running.refusal(Path(module.params["log"]), min(stale.values())) if stale else ""
    module.exit_json(
        changed=False,
        stale=sorted(stale),
        refusal=refusal,
        msg=describe(unit, sorted(stale), refusal),
    )


if __name__ == "__main__":
    main()
