#!/usr/bin/python
"""Ansible module: hold one socket open, as a browser does, and report what arrives."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_listen
short_description: Wait on a socket for pong, heartbeat and canary
description:
  - Opens one socket, sends V(ping) once and nothing after that, so that the api has to send its heartbeat.
  - Ends when everything has arrived, or at O(deadline). What did not arrive is a result, not a failure of the
    task.
  - Changes nothing, so check mode listens as well.
options:
  nonce:
    description: Identifies this run's canary; see M(screen_flow.live.site_canary).
    type: str
    required: true
  heartbeat:
    description: Whether to wait for a heartbeat.
    type: bool
    default: true
  deadline:
    description: Seconds after which it ends.
    type: float
    required: true
requirements:
  - websocket-client
extends_documentation_fragment: [screen_flow.live.probe.single, screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Listen through the edge
  screen_flow.live.site_listen:
    target:
      name: edge
      url: wss://www.example.com/api/v1/cv-processing/ws/site-check
      origin: https://www.example.com
    nonce: a1b2c3
    deadline: 33
  async: 60
  poll: 0
"""

RETURN = r"""
listened:
  description: A datum of the evidence document, whose value is described here.
  type: dict
  returned: always
  contains:
    opened_ms:
      description: Milliseconds until the socket was open.
      type: float
    pong_ms:
      description: Milliseconds from ping to pong, or null.
      type: float
    heartbeat_seconds:
      description: Seconds of silence after which the heartbeat came, or null.
      type: float
    canary_ms:
      description: >-
        Milliseconds from the time in the canary's first event, by the server's clock, to its arrival here, by
        this machine's; null when it did not arrive.
      type: float
    processed_ms:
      description: Milliseconds between the times of its first event and of its processed CV's, or null.
      type: float
    ended:
      description: How the socket ended before everything had arrived, in one sentence; else empty.
      type: str
"""

import datetime
import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.canary import ends_a_cv, file_name
from ..module_utils.evidence.document import Datum, Missing
from ..module_utils.probe.stages import Result, StageError, open_socket, since, timeout_message
from ..module_utils.probe.target import TARGET_SPEC, Target, read_target

try:
    import websocket
except ImportError:
    websocket = None  # type: ignore[assignment]


def listen(target: Target, nonce: str, heartbeat: bool, deadline: float) -> Datum:
    """Return what came over the socket within the deadline, as a datum."""
    start = time.monotonic()
    opening = start + min(target.limit, deadline)
    result = Result(target.name, target.url)
    try:
        client = open_socket(target, result, opening)
    except StageError as error:
        return Missing(f"no socket was open: {error}", error.reason).datum()
    except TimeoutError:
        message = timeout_message("http", result.address or target.address, target.limit)
        return Missing(f"no socket was open: {message}", "timeout").datum()
    except OSError as error:
        return Missing(f"no socket was open: {error}.", "closed").datum()
    found: dict[str, Any] = {
        "opened_ms": since(start),
        "pong_ms": None,
        "heartbeat_seconds": None,
        "canary_ms": None,
        "processed_ms": None,
        "ended": "",
    }
    wanted = {"pong_ms", "canary_ms", "processed_ms"} | ({"heartbeat_seconds"} if heartbeat else set())
    first: dict[str, float] = {}
    try:
        sent = time.monotonic()
        client.send("ping")
        while any(found[name] is None for name in wanted) and time.monotonic() - start < deadline:
            client.settimeout(max(0.1, start + deadline - time.monotonic()))
            _record(found, client.recv(), sent, nonce, first)
    except websocket.WebSocketTimeoutException:
        pass  # the deadline; what did not arrive is null
    except (websocket.WebSocketException, OSError) as error:
        # Its own text may contain headers.
        found["ended"] = f"the socket ended after {time.monotonic() - start:.0f} s ({type(error).__name__})."
    finally:
        client.shutdown()
    return {"value": found}


def _record(
    found: dict[str, Any], message: str | bytes, sent: float, nonce: str, first: dict[str, float]
) -> None:
    """Record a message's arrival; `first` keeps when the canary's first event was sent."""
    arrived = time.time()
    try:
        event = json.loads(message)
        kind = event["type"]
    except (ValueError, TypeError, KeyError):
        return  # not one of these; the checks report what did not arrive
    if kind == "pong" and found["pong_ms"] is None:
        found["pong_ms"] = since(sent)
    elif kind == "heartbeat" and found["heartbeat_seconds"] is None:
        found["heartbeat_seconds"] = round(time.monotonic() - sent, 1)
    elif file_name(nonce) in str(message):
        try:
            sent_at = datetime.datetime.fromisoformat(event["time"]).timestamp()
        except (KeyError, TypeError, ValueError):
            found["ended"] = "an event has no time in ISO 8601 (docs/contract.md)."
            return
        if found["canary_ms"] is None:
            found["canary_ms"] = round((arrived - sent_at) * 1000, 1)
            first["sent"] = sent_at
        if ends_a_cv(str(message)):
            found["processed_ms"] = round((sent_at - first["sent"]) * 1000, 1)


def main() -> None:
    """Entry point: listen, return."""
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "dict", "required": True, "options": TARGET_SPEC},
            "nonce": {"type": "str", "required": True},
            "heartbeat": {"type": "bool", "default": True},
            "deadline": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        target = read_target(given["target"], given["deadline"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    listened = listen(target, given["nonce"], given["heartbeat"], given["deadline"])
    module.exit_json(changed=False, listened=listened)


if __name__ == "__main__":
    main()
