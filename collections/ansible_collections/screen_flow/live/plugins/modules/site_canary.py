#!/usr/bin/python
"""Ansible module: publish one event as the backend does, and check whether the api logged its sockets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_canary
short_description: Publish a canary as the backend publishes its events
description:
  - Publishes one event from the worker's container, with the backend's own code and password, to a user id
    that is reserved for probes. Reads the api's log for the lines that the guide requires.
  - The event expires like any other and changes nothing on the site.
options:
  user_id:
    description: User id that is reserved for probes; starts with V(site-check).
    type: str
    default: site-check
  nonce:
    description: Identifies this canary.
    type: str
    required: true
  compose_dir:
    description: Folder of the compose project.
    type: path
    default: /opt/screen-flow
  delay:
    description: Seconds to wait before publishing.
    type: int
    default: 0
  timeout:
    description: Seconds that Docker may take; this includes the start of a Python process.
    type: float
    default: 8
extends_documentation_fragment: screen_flow.live.attributes.read_only
attributes:
  check_mode:
    support: full
    details: Nothing is published in check mode.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Publish a canary
  screen_flow.live.site_canary:
    nonce: a1b2c3
"""

RETURN = r"""
canary:
  description: >-
    A datum of the evidence document; its value is the V(channel) that the canary was published on, or the
    V(error) for which it was not, and V(redis_code), the code of the Redis error behind that, such as OOM, or
    null.
  type: dict
  returned: always
logged:
  description: A datum; the lines of the last two minutes about the probe's sockets, redacted.
  type: dict
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.canary import publish
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
    """Entry point: publish and read the log, both at once."""
    module = AnsibleModule(
        argument_spec={
            "user_id": {"type": "str", "default": "site-check"},
            "nonce": {"type": "str", "required": True},
            "compose_dir": {"type": "path", "default": "/opt/screen-flow"},
            "delay": {"type": "int", "default": 0},
            "timeout": {"type": "float", "default": 8},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not given["user_id"].startswith("site-check"):
        module.fail_json(msg=f"user_id is '{given['user_id']}'; use one that starts with site-check.")
    time.sleep(0 if module.check_mode else given["delay"])
    folder, user_id = given["compose_dir"], given["user_id"]
    deadline = Deadline(given["timeout"])
    sources: dict[str, Source] = {"logged": lambda: logged(folder, user_id, deadline)}
    if not module.check_mode:
        sources["canary"] = lambda: publish(
            container("worker", folder, deadline), user_id, given["nonce"], deadline
        )
    unpublished = Missing("nothing is published in check mode.").datum()
    module.exit_json(changed=False, **{"canary": unpublished, **gather(sources, deadline)})


if __name__ == "__main__":
    main()
