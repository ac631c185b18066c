#!/usr/bin/python
"""Ansible module: upload one CV as the probe's user, and check whether the api logged its sockets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_canary
short_description: Upload a canary, whose events a socket then receives
description:
  - Uploads one small CV over the api's port on this server, by the session of a user id that is reserved for
    probes. Any backend that keeps to docs/contract.md processes it like any other.
  - With O(reference_backend), also reads the api's log for the lines that the guide requires.
options:
  nonce:
    description: Identifies this canary; its file name is V(site-check-NONCE.txt).
    type: str
    required: true
  cookie:
    description: Cookie header with the session of the probe's user.
    type: str
    required: true
  origin:
    description: Origin header, by which the api recognizes its own page.
    type: str
    required: true
  api_port:
    description: Port of the api on 127.0.0.1.
    type: int
    default: 8000
  user_id:
    description: User id that is reserved for probes, whose sockets the log is searched for.
    type: str
    default: site-check
  compose_dir:
    description: Folder of the compose project.
    type: path
    default: /opt/screen-flow
  reference_backend:
    description: Whether the api logs as the reference backend does.
    type: bool
    default: true
  delay:
    description: Seconds to wait before uploading.
    type: int
    default: 0
  timeout:
    description: Seconds that the upload and Docker may take.
    type: float
    default: 8
extends_documentation_fragment: screen_flow.live.attributes.read_only
attributes:
  check_mode:
    support: full
    details: Nothing is uploaded in check mode.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Upload a canary
  screen_flow.live.site_canary:
    nonce: a1b2c3
    origin: https://www.example.com
    cookie: "{{ signed.cookie }}"
"""

RETURN = r"""
canary:
  description: >-
    A datum of the evidence document; its value is the HTTP V(status) of the upload, the V(batch_id), and the
    V(error) for which it was not accepted, else empty.
  type: dict
  returned: always
logged:
  description: A datum; the lines of the last two minutes about the probe's sockets, redacted.
  type: dict
  returned: with O(reference_backend)
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.canary import Sender, upload
from ..module_utils.evidence.document import Missing, last_lines
from ..module_utils.evidence.gather import Deadline, Source, gather, run


def container(service: str, compose_dir: str, deadline: Deadline) -> str:
    """Return the id of a service's running container; raises Missing. Docker is faster than compose."""
    labels = (f"project.working_dir={compose_dir}", f"service={service}")
    filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
    listed = run(["docker", "ps", "--quiet", *filters], deadline, at_most=deadline.seconds)
    if not listed.stdout.split():
        raise Missing(" ".join(last_lines(listed.stderr)) or f"container {service} is not running.")
    return listed.stdout.split()[0]


def logged(compose_dir: str, user_id: str, deadline: Deadline) -> list[str]:
    """Return the api's log lines about sockets of the probe's user; raises Missing."""
    api = container("api", compose_dir, deadline)
    # A limit, for a busy api.
    command = ["docker", "logs", "--since=2m", "--tail=2000", api]
    shown = run(command, deadline, at_most=deadline.seconds)
    if shown.returncode:
        raise Missing(f"Docker returned no log: {' '.join(last_lines(shown.stderr)[-1:])}")
    signs = (f"WebSocket connected for user {user_id}", f"Subscribed to Redis channel: user:{user_id}:events")
    lines = (shown.stdout + shown.stderr).splitlines()
    return last_lines("\n".join(line for line in lines if line.endswith(signs)))


def main() -> None:
    """Entry point: upload and read the log, both at once."""
    module = AnsibleModule(
        argument_spec={
            "nonce": {"type": "str", "required": True},
            "cookie": {"type": "str", "required": True, "no_log": True},
            "origin": {"type": "str", "required": True},
            "api_port": {"type": "int", "default": 8000},
            "user_id": {"type": "str", "default": "site-check"},
            "compose_dir": {"type": "path", "default": "/opt/screen-flow"},
            "reference_backend": {"type": "bool", "default": True},
            "delay": {"type": "int", "default": 0},
            "timeout": {"type": "float", "default": 8},
        },
        supports_check_mode=True,
    )
    given = module.params
    time.sleep(0 if module.check_mode else given["delay"])
    deadline = Deadline(given["timeout"])
    sources: dict[str, Source] = {}
    if given["reference_backend"]:
        sources["logged"] = lambda: logged(given["compose_dir"], given["user_id"], deadline)
    if not module.check_mode:
        sender = Sender(given["api_port"], given["origin"], given["cookie"], given["timeout"])
        sources["canary"] = lambda: upload(sender, given["nonce"])
    unsent = Missing("nothing is uploaded in check mode.").datum()
    module.exit_json(changed=False, **{"canary": unsent, **gather(sources, deadline)})


if __name__ == "__main__":
    main()
