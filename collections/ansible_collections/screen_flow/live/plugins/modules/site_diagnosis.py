#!/usr/bin/python
"""Ansible module: diagnose the site from the evidence, as text and as data."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_diagnosis
short_description: Name the layers at fault, the causes and the remedies
description:
  - Combines what M(screen_flow.live.site_evidence_server) and M(screen_flow.live.site_evidence_edge)
    collected into one document, and applies the rules to it.
  - Fails when there are findings, unless O(final) is false and a second look may explain them.
options:
  unreachable:
    description: Why the server could not be reached; empty when it was.
    type: str
    default: ""
  final:
    description: Whether this is the last look; a first one does not judge what may be temporary.
    type: bool
    default: true
  path:
    description: File for diagnosis and evidence as JSON. Its folder must exist. By default none is written.
    type: path
extends_documentation_fragment: [screen_flow.live.evidence, screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
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
    page; which evidence is V(missing) and why; why the stack is V(unsettled), and the findings that are
    therefore V(waiting) for a second look.
  type: dict
  returned: always
look_again:
  description: Whether a deployment in progress, or a single failure, may explain what was found.
  type: bool
  returned: always
text:
  description: The diagnosis as text for a terminal.
  type: str
  returned: always
"""

import datetime
import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.diagnosis.engine import diagnose
from ..module_utils.diagnosis.rules import RULES
from ..module_utils.diagnosis.text import as_record, describe
from ..module_utils.evidence.document import DOCUMENT_SPEC, Missing, document_of


def main() -> None:
    """Entry point: diagnose, write the file, return."""
    module = AnsibleModule(
        argument_spec={
            **DOCUMENT_SPEC,
            "unreachable": {"type": "str", "default": ""},
            "final": {"type": "bool", "default": True},
            "path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    if given["unreachable"]:
        given["server"] = {"ssh": Missing(given["unreachable"], "unreachable").datum()}
    document = document_of(given)
    diagnosis = diagnose(document, RULES, again=given["final"])
    look_again = not given["final"] and bool(diagnosis.waiting)
    record, text = as_record(diagnosis), describe(diagnosis)
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
                msg=f"path is '{given['path']}', which can't be written ({error.strerror}): use a file in a "
                f"folder that exists. The diagnosis is: {text}",
            )
    result = {"diagnosis": record, "look_again": look_again, "text": text}
    if diagnosis.findings and not look_again:
        module.fail_json(msg=text, **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
