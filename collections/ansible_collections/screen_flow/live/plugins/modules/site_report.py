#!/usr/bin/python
"""Ansible module: check the deployment checklist against the evidence; table, JSON and JUnit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_report
short_description: Check the deployment checklist, line by line
description:
  - Checks each line of the guide's deployment checklist against the evidence that
    M(screen_flow.live.site_evidence_server), M(screen_flow.live.site_evidence_edge),
    M(screen_flow.live.site_listen) and M(screen_flow.live.site_canary) collected.
  - Fails when a line failed. A line that needs a Cloudflare token is V(not tried) without one. A
    line with a V(warning) does not fail it.
options:
  host:
    description: The server that was checked.
    type: str
    required: true
  verify:
    description: The data V(listened), V(canary) and V(logged).
    type: dict
    required: true
  layers:
    description: The layers whose lines are checked; empty for all.
    type: list
    elements: str
    default: []
  folder:
    description: Folder for verify.json and verify.xml (JUnit). It is created. By default none is written.
    type: path
requirements:
  - junitparser, where O(folder) is given
extends_documentation_fragment: [screen_flow.live.evidence, screen_flow.live.attributes.read_only]
attributes:
  check_mode:
    support: full
    details: In check mode nothing fails and nothing is written; RV(table) shows the state of the site.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Check the checklist
  screen_flow.live.site_report:
    site: https://www.example.com
    host: "{{ inventory_hostname }}"
    expected: {host: www.example.com, api_port: 8000}
    server: "{{ server.evidence }}"
    edge: "{{ edge.evidence }}"
    verify: {listened: "{{ socket.listened }}", canary: "{{ canary.canary }}", logged: "{{ canary.logged }}"}
    folder: /tmp/verify
  delegate_to: localhost
"""

RETURN = r"""
table:
  description: The checklist for a terminal.
  type: str
  returned: always
lines:
  description: Each line with layer, name, verdict (ok, warning, failed, not tried) and detail, the evidence
    or the cause.
  type: list
  elements: dict
  returned: always
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils.diagnosis.checklist import FAILED, LAYERS, NOT_TRIED, OK, WARNING, Line, judge, table
from ..module_utils.evidence.document import DOCUMENT_SPEC, document_of

try:
    import junitparser
except ImportError:
    junitparser = None  # type: ignore[assignment]


def summary(lines: list[Line]) -> str:
    """Return how many lines are ok and how many are not, as a sentence."""
    verdicts = [line.verdict for line in lines]
    parts = [f"{verdicts.count(OK)} of {len(lines)} lines are ok"]
    parts += [f"{verdicts.count(each)} {each}" for each in (WARNING, FAILED, NOT_TRIED) if each in verdicts]
    return f"{', '.join(parts)}."


def junit(record: Mapping[str, Any], lines: list[Line]) -> str:
    """Return the lines as JUnit's XML."""
    suite = junitparser.TestSuite(record["site"])
    suite.timestamp = record["time"]
    suite.hostname = record["host"]
    for line in lines:
        case = junitparser.TestCase(line.name, classname=f"verify.{line.layer}")
        if line.verdict == FAILED:
            case.result = [junitparser.Failure(line.detail)]
        elif line.verdict == NOT_TRIED:
            case.result = [junitparser.Skipped(line.detail)]
        else:
            case.system_out = line.detail
        suite.add_testcase(case)
    xml = junitparser.JUnitXml()
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    return str(xml.tostring().decode())  # type: ignore[no-untyped-call]


def main() -> None:
    """Entry point: check, write the files, return."""
    module = AnsibleModule(
        argument_spec={
            **DOCUMENT_SPEC,
            "host": {"type": "str", "required": True},
            "verify": {"type": "dict", "required": True},
            "layers": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    document = document_of(given, "verify")
    lines = judge(document, given["layers"] or LAYERS)
    failed = [line for line in lines if line.verdict == FAILED]
    shown = f"{table(lines)}\n\n{summary(lines)}"
    result = {"table": shown, "lines": [asdict(line) for line in lines]}
    if given["folder"] and not module.check_mode:
        if junitparser is None:
            module.fail_json(msg=missing_required_lib("junitparser"), **result)
        record = {
            "site": given["site"],
            "host": given["host"],
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "ok": not failed,
            "summary": summary(lines),
            "lines": result["lines"],
            "evidence": document,
        }
        folder = Path(given["folder"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "verify.json").write_text(json.dumps(record, indent=2) + "\n")
            (folder / "verify.xml").write_text(junit(record, lines))
        except OSError as error:
            module.fail_json(
                msg=f"folder is '{folder}', which can't be written ({error.strerror}); use another.",
                **result,
            )
    if failed and not module.check_mode:
        causes = " ".join(f"{line.layer}, {line.name}: {line.detail}" for line in failed)
        module.fail_json(msg=f"The site is not verified. {causes}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
