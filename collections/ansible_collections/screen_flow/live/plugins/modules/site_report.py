#!/usr/bin/python
"""Ansible module: judge the deployment checklist by the evidence, for people and for machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_report
short_description: Judge the deployment checklist, line by line
description:
  - Makes the guide's deployment checklist of the evidence that M(screen_flow.live.site_evidence_server),
    M(screen_flow.live.site_evidence_edge), M(screen_flow.live.site_listen) and
    M(screen_flow.live.site_canary) gathered; each line with verdict and evidence.
  - Fails when a line failed. A line that takes a token of Cloudflare's is V(not tried) without one.
options:
  site:
    description: The site's URL.
    type: str
    required: true
  host:
    description: The server that was asked.
    type: str
    required: true
  expected:
    description: What the inventory says of the site.
    type: dict
    required: true
  server:
    description: Evidence of the server.
    type: dict
    required: true
  edge:
    description: Evidence of the edge.
    type: dict
    required: true
  verify:
    description: The data V(listened), V(canary) and V(logged).
    type: dict
    required: true
  layers:
    description: The layers whose lines are judged; empty for all.
    type: list
    elements: str
    default: []
  folder:
    description: >-
      Folder for verify.json, verify.xml (JUnit) and verify.html, which needs no other file. It is made. Empty
      for nowhere.
    type: path
requirements:
  - junitparser and jinja2, where O(folder) is given
extends_documentation_fragment:
  - screen_flow.live.attributes.read_only
attributes:
  check_mode:
    support: full
    details: In check mode nothing fails and nothing is written; RV(table) says how far the site is.
  idempotent:
    support: full
    details: The files are a record of this run, not a part of the site, so writing them is no change.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Judge the checklist
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
  description: Each line with layer, name, verdict (ok, failed, not tried) and what it says.
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

from ..module_utils.diagnosis.checklist import FAILED, LAYERS, NOT_TRIED, OK, Line, judge, table
from ..module_utils.evidence.document import FORMAT

try:
    import jinja2
    import junitparser
except ImportError:
    junitparser = None  # type: ignore[assignment]

# Nothing is fetched from anywhere: the page can be sent to somebody.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ verdict }}: {{ site }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
td:nth-child(3) { white-space: nowrap; font-weight: 600 }
.ok { color: #14682b } .failed { color: #a3140f } .not { color: #6b5900 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: 1rem }
</style>
<h1>{{ site }}: {{ verdict }}</h1>
<p>{{ host }}, {{ time }}. {{ count }}</p>
<table>
<tr><th>Layer<th>Check<th>Verdict<th>Evidence
{% for line in lines %}
<tr><td>{{ line.layer }}<td>{{ line.name }}<td class="{{ line.verdict.split()[0] }}">{{ line.verdict }}
<td>{{ line.says }}
{% endfor %}
</table>
<details><summary>All evidence</summary><pre>{{ evidence }}</pre></details>
</html>
"""


def count(lines: list[Line]) -> str:
    """Return how many lines are ok and how many are not, as a sentence."""
    verdicts = [line.verdict for line in lines]
    parts = [f"{verdicts.count(OK)} of {len(lines)} lines are ok"]
    parts += [f"{verdicts.count(each)} {each}" for each in (FAILED, NOT_TRIED) if each in verdicts]
    return f"{', '.join(parts)}."


def junit(record: Mapping[str, Any], lines: list[Line]) -> str:
    """Return the lines as JUnit's XML."""
    suite = junitparser.TestSuite(record["site"])
    suite.timestamp = record["time"]
    suite.hostname = record["host"]
    for line in lines:
        case = junitparser.TestCase(line.name, classname=f"verify.{line.layer}")
        if line.verdict == FAILED:
            case.result = [junitparser.Failure(line.says)]
        elif line.verdict == NOT_TRIED:
            case.result = [junitparser.Skipped(line.says)]
        else:
            case.system_out = line.says
        suite.add_testcase(case)
    xml = junitparser.JUnitXml()
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    return str(xml.tostring().decode())  # type: ignore[no-untyped-call]


def html(record: Mapping[str, Any], lines: list[Line]) -> str:
    """Return the lines as one page that needs no other file."""
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    return page.render(
        **{**record, "lines": lines},
        count=count(lines),
        verdict="verified" if record["ok"] else "not verified",
    )


def main() -> None:
    """Entry point: judge, write, say."""
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "expected": {"type": "dict", "required": True},
            "server": {"type": "dict", "required": True},
            "edge": {"type": "dict", "required": True},
            "verify": {"type": "dict", "required": True},
            "layers": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    document = {"format": FORMAT, **{part: given[part] for part in ("expected", "server", "edge", "verify")}}
    lines = judge(document, given["layers"] or LAYERS)
    failed = [line for line in lines if line.verdict == FAILED]
    shown = f"{table(lines)}\n\n{count(lines)}"
    result = {"table": shown, "lines": [asdict(line) for line in lines]}
    if given["folder"] and not module.check_mode:
        if junitparser is None:
            module.fail_json(msg=missing_required_lib("junitparser or jinja2"), **result)
        record = {
            "site": given["site"],
            "host": given["host"],
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "ok": not failed,
            "lines": result["lines"],
            "evidence": json.dumps(document, indent=2),
        }
        folder = Path(given["folder"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "verify.json").write_text(json.dumps(record | {"evidence": document}, indent=2) + "\n")
            (folder / "verify.xml").write_text(junit(record, lines))
            (folder / "verify.html").write_text(html(record, lines))
        except OSError as error:
            module.fail_json(
                msg=f"folder is '{folder}', which can't be written ({error.strerror}); give another.",
                **result,
            )
    if failed and not module.check_mode:
        said = " ".join(f"{line.layer}, {line.name}: {line.says}" for line in failed)
        module.fail_json(msg=f"The site is not verified. {said}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
