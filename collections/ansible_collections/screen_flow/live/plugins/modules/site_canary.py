#!/usr/bin/python
"""Ansible module: publish one event as the backend does, and read whether the api logged its sockets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_canary
short_description: Publish a canary on the way of the backend's own events
description:
  - Publishes one event from the worker's container, by the backend's own code and password, to the probe's
    own person, whom nobody else is. Reads the api's log for the lines that the guide asks for.
  - The event is forgotten like any other and changes nothing on the site.
options:
  user_id:
    description: The probe's person; begins with V(site-check).
    type: str
    default: site-check
  nonce:
    description: A word that tells this canary from others.
    type: str
    required: true
  compose_dir:
    description: Folder of the compose project.
    type: path
    default: /opt/screen-flow
  delay:
    description: Seconds to wait before it is published.
    type: int
    default: 0
  timeout:
    description: Seconds that Docker may take; a Python process starts in between.
    type: float
    default: 8
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
attributes:
  check_mode:
    support: full
    details: Nothing is published in check mode.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Publish a canary
  screen_flow.live.site_canary:
    nonce: a1b2c3
"""

RETURN = r"""
canary:
  description: A datum of the evidence document; its value is described.
  type: dict
  returned: always
  contains:
    channel:
      description: The channel that it was published on.
      type: str
    error:
      description: Why it was not published; else empty.
      type: str
logged:
  description: A datum; the lines of the last two minutes that tell of the probe's sockets, redacted.
  type: dict
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.document import Deadline, Missing, Source, gather, last_lines, run

SCRIPT = """
import sys
from app.batches import now
from app.events import PUBLISH, channel, dump, stream
from app.worker import broker
user, nonce = sys.argv[1:]
event = dump({"type": "canary", "time": now(), "nonce": nonce})
broker.client.eval(PUBLISH, 1, stream(user), channel(user), event)
print(channel(user))
"""


def container(service: str, compose_dir: str, deadline: Deadline) -> str:
    """Return the id of a service's running container; raises Missing. Docker is quicker than compose."""
    labels = (f"project.working_dir={compose_dir}", f"service={service}")
    filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
    listed = run(["docker", "ps", "--quiet", *filters], deadline, at_most=deadline.seconds)
    if not listed.stdout.split():
        raise Missing(" ".join(last_lines(listed.stderr)) or f"container {service} does not run.")
    return listed.stdout.split()[0]


def publish(compose_dir: str, user_id: str, nonce: str, deadline: Deadline) -> dict[str, str]:
    """Publish; return the channel or the error. Raises Missing."""
    worker = container("worker", compose_dir, deadline)
    command = ["docker", "exec", worker, "python", "-c", SCRIPT, user_id, nonce]
    done = run(command, deadline, at_most=deadline.seconds)
    if done.returncode:
        return {"channel": "", "error": " ".join(last_lines(done.stderr)[-1:])}
    return {"channel": done.stdout.strip(), "error": ""}


def logged(compose_dir: str, user_id: str, deadline: Deadline) -> list[str]:
    """Return the api's lines about sockets of the probe's person; raises Missing."""
    api = container("api", compose_dir, deadline)
    # 2000 lines are quickly read, also those of a busy api.
    command = ["docker", "logs", "--since=2m", "--tail=2000", api]
    shown = run(command, deadline, at_most=deadline.seconds)
    if shown.returncode:
        raise Missing(f"Docker gave no log: {' '.join(last_lines(shown.stderr)[-1:])}")
    signs = (f"WebSocket connected for user {user_id}", f"Subscribed to Redis channel: user:{user_id}:events")
    said = (shown.stdout + shown.stderr).splitlines()
    return last_lines("\n".join(line for line in said if line.endswith(signs)))


def main() -> None:
    """Entry point: publish and read, both at once."""
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
        module.fail_json(msg=f"user_id is '{given['user_id']}'; a canary is for site-check only.")
    time.sleep(0 if module.check_mode else given["delay"])
    folder, user_id = given["compose_dir"], given["user_id"]
    deadline = Deadline(given["timeout"])
    sources: dict[str, Source] = {"logged": lambda: logged(folder, user_id, deadline)}
    if not module.check_mode:
        sources["canary"] = lambda: publish(folder, user_id, given["nonce"], deadline)
    found = gather(sources, deadline)
    module.exit_json(changed=False, **{"canary": {"missing": "nothing is published in a dry run."}, **found})


if __name__ == "__main__":
    main()
