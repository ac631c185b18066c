#!/usr/bin/python
"""Ansible module: make a diagnosis of the evidence, for people and for machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_diagnosis
short_description: Name the layers at fault, the causes and the remedies
description:
  - Makes a document of what M(screen_flow.live.site_evidence_server) and
    M(screen_flow.live.site_evidence_edge) gathered, and reasons over it.
  - Fails when there are findings, unless O(final) is false and a second look may explain them.
options:
  server:
    description: The first module's evidence; empty where the server could not be reached.
    type: dict
    required: true
  edge:
    description: The second module's evidence.
    type: dict
    required: true
  expected:
    description: What the inventory says of the site.
    type: dict
    required: true
  site:
    description: The site's URL.
    type: str
    required: true
  unreachable:
    description: Why the server could not be reached; empty where it was.
    type: str
    default: ""
  final:
    description: Whether this is the last look; a first one leaves open what a moment may explain.
    type: bool
    default: true
  path:
    description: Where to write diagnosis and evidence as JSON. Its folder must exist. Empty for nowhere.
    type: path
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
attributes:
  idempotent:
    support: full
    details: The file is a record of this run, not a part of the site, so writing it is no change.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Name the layers at fault
  screen_flow.live.site_diagnosis:
    server: "{{ server.evidence }}"
    edge: "{{ edge.evidence }}"
    expected: {host: www.example.com, api_port: 8000}
    site: https://www.example.com
  delegate_to: localhost
"""

RETURN = r"""
diagnosis:
  description: >-
    Whether the site is V(healthy); V(findings), root cause first, each with rule, layer, cause, remedy and
    page; what is V(missing) of the evidence and why; V(unsettled), and what is V(waiting) for that.
  type: dict
  returned: always
look_again:
  description: Whether something was seen that a deployment under way, or a single failure, may explain.
  type: bool
  returned: always
text:
  description: The same for people.
  type: str
  returned: always
"""

import datetime
import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.diagnosis.rules import as_record, diagnose, say
from ..module_utils.evidence.document import FORMAT


def main() -> None:
    """Entry point: reason, write, say."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "dict", "required": True},
            "edge": {"type": "dict", "required": True},
            "expected": {"type": "dict", "required": True},
            "site": {"type": "str", "required": True},
            "unreachable": {"type": "str", "default": ""},
            "final": {"type": "bool", "default": True},
            "path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    server = {"ssh": {"missing": given["unreachable"]}} if given["unreachable"] else given["server"]
    document = {"format": FORMAT, "expected": given["expected"], "server": server, "edge": given["edge"]}
    diagnosis = diagnose(document, again=given["final"])
    look_again = not given["final"] and bool(diagnosis.waiting)
    record, text = as_record(diagnosis), say(diagnosis)
    if given["path"] and not module.check_mode and not look_again:
        written = {
            "site": given["site"],
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **record,
            "evidence": document,
        }
        try:
            Path(given["path"]).write_text(json.dumps(written, indent=2) + "\n")
        except OSError as error:
            module.fail_json(
                msg=f"path is '{given['path']}', which can't be written ({error.strerror}): give a file in a "
                f"folder that exists. The diagnosis is: {text}",
            )
    result = {"diagnosis": record, "look_again": look_again, "text": text}
    if diagnosis.findings and not look_again:
        module.fail_json(msg=text, **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
