#!/usr/bin/python
"""Ansible module: sign a short session for probing the site."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_session
short_description: Sign a short session for probes
description:
  - Reads the key that the api accepts for probes only, and signs a session (a JWT, HS256) that ends after
    O(lifetime). The key does not leave the server.
  - RV(cookie) is a secret. Register it with C(no_log=true).
  - Does not fail without a key or the library, because C(no_log) would hide the reason. RV(problem) has it
    then, and RV(cookie) is empty.
options:
  key_file:
    description: File on the server whose first line is the key.
    type: path
    required: true
  subject:
    description: The session's user. The api accepts the key only for subjects that start with V(site-check).
    type: str
    default: site-check
  lifetime:
    description: Seconds until the session ends.
    type: int
    default: 120
requirements:
  - PyJWT (Debian's python3-jwt)
extends_documentation_fragment: screen_flow.live.attributes.read_only
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Sign a session for the probes
  screen_flow.live.site_session:
    key_file: /opt/screen-flow/secrets/probe_key
  register: session
  no_log: true
"""

RETURN = r"""
cookie:
  description: The Cookie header, V(name=value); empty when there is a problem. A secret.
  type: str
  returned: always
problem:
  description: Why there is no cookie, with the remedy; empty when there is one.
  type: str
  returned: always
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

try:
    import jwt
except ImportError:
    jwt = None  # type: ignore[assignment]

COOKIE = "__Host-screen-flow"


class NoSessionError(Exception):
    """No session can be signed; the text is the sentence for the user."""


def read_key(path: Path) -> str:
    """Return the first line of the key file; raises NoSessionError."""
    try:
        key = path.read_text(encoding="ascii").partition("\n")[0].strip()
    except OSError as error:
        raise NoSessionError(
            f"the probe key {path} can't be read ({error.strerror}): role app_stack creates it; run as root."
        ) from error
    except UnicodeDecodeError as error:
        raise NoSessionError(
            f"the probe key {path} is not text: remove it and let role app_stack create a new one."
        ) from error
    if not key:
        raise NoSessionError(
            f"the probe key {path} is empty: remove it and let role app_stack create a new one."
        )
    return key


def sign(key: str, subject: str, lifetime: int, now: int) -> str:
    """Return the Cookie header for a session that ends `lifetime` seconds after `now` (Unix time)."""
    token = jwt.encode({"sub": subject, "iat": now, "exp": now + lifetime}, key, algorithm="HS256")
    return f"{COOKIE}={token}"


def main() -> None:
    """Entry point: read the key, sign, return."""
    module = AnsibleModule(
        argument_spec={
            # The name of a file is no secret, though Ansible's heuristics take "key" for one.
            "key_file": {"type": "path", "required": True, "no_log": False},
            "subject": {"type": "str", "default": "site-check"},
            "lifetime": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    cookie = problem = ""
    try:
        if jwt is None:
            raise NoSessionError(
                "PyJWT is missing on the server, so the probes have no session: "
                "ansible-playbook playbooks/origin.yml --tags site_check installs it."
            )
        key = read_key(Path(module.params["key_file"]))
        cookie = sign(key, module.params["subject"], module.params["lifetime"], int(time.time()))
    except NoSessionError as error:
        problem = str(error)
    module.exit_json(changed=False, cookie=cookie, problem=problem)


if __name__ == "__main__":
    main()
