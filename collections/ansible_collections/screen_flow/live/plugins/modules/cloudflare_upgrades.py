#!/usr/bin/python
"""Ansible module: count a zone's WebSocket upgrades of the last day, hour by hour."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_upgrades
short_description: Count a zone's WebSocket upgrades of the last day by hour
description:
  - Queries Cloudflare's GraphQL API for the requests that the edge answered with status 101 in the last 24
    whole hours.
  - Cloudflare counts a WebSocket when it closes, so open ones are missing. The data set is sampled, so the
    numbers are estimates. Messages inside a WebSocket are not counted at all.
options:
  host:
    description: Count only requests for this host name, in lower case. By default, the whole zone.
    type: str
  chart_file:
    description: PNG file to draw, on the machine that runs the module; its folder must exist.
    type: path
requirements:
  - matplotlib, for O(chart_file); in the module's repository, C(pip install '.[chart]') installs it
notes:
  - The token needs Analytics Read.
  - In check mode the numbers are queried too, since nothing changes at Cloudflare; no chart is drawn.
extends_documentation_fragment: [screen_flow.live.cloudflare, screen_flow.live.attributes.read_only]
attributes:
  idempotent:
    support: partial
    details: The numbers change every hour. An unchanged chart is not written again.
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Count the WebSocket upgrades of the last day and draw them
  screen_flow.live.cloudflare_upgrades:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    chart_file: /tmp/upgrades.png
  delegate_to: localhost
  register: upgrades

- name: Show them
  ansible.builtin.debug:
    var: upgrades.table
"""

RETURN = r"""
hours:
  description: The 24 hours, the oldest first.
  type: list
  elements: dict
  returned: success
  sample: [{hour: "2026-11-24T19:00:00Z", upgrades: 42}]
  contains:
    hour:
      description: Start of the hour, in UTC, as in ISO 8601.
      type: str
      sample: "2026-11-24T19:00:00Z"
    upgrades:
      description: Requests that the edge answered with 101, as Cloudflare estimates them.
      type: int
      sample: 42
total:
  description: Sum of all hours.
  type: int
  returned: success
  sample: 815
table:
  description: The hours as lines of text, each with a bar.
  type: list
  elements: str
  returned: success
  sample: ["2026-11-24 19:00       42 ##################################################"]
"""

import datetime as dt
import io
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils.cloudflare.client import CloudflareFailure
from ..module_utils.cloudflare.module import create_module, open_zone

HOURS = 24
BAR_WIDTH = 50
BAR_COLOUR = "#2f6f8f"
QUERY = """
query Upgrades($zone: string!, $filter: ZoneHttpRequestsAdaptiveGroupsFilter_InputObject!) {
  viewer {
    zones(filter: {zoneTag: $zone}) {
      httpRequestsAdaptiveGroups(limit: 100, filter: $filter, orderBy: [datetimeHour_ASC]) {
        count
        dimensions { datetimeHour }
      }
    }
  }
}
"""


def last_hours(now: dt.datetime) -> list[dt.datetime]:
    """Return the start of each of the last 24 whole hours, the oldest first."""
    end = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    return [end - dt.timedelta(hours=back) for back in range(HOURS, 0, -1)]


def timestamp(time: dt.datetime) -> str:
    """Return a time as Cloudflare writes it: 2026-11-24T19:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Return upgrades by hour; raises KeyError, TypeError or ValueError for data of another shape."""
    found: dict[str, int] = {}
    for zone in data["viewer"]["zones"]:
        for group in zone["httpRequestsAdaptiveGroups"]:
            hour = str(group["dimensions"]["datetimeHour"])
            found[hour] = found.get(hour, 0) + int(group["count"])
    return found


def table(hours: list[dict[str, Any]]) -> list[str]:
    """Return a line for each hour: its start (UTC), the number, and a bar."""
    most = max([hour["upgrades"] for hour in hours] + [1])
    return [
        f"{hour['hour'][:10]} {hour['hour'][11:16]} {hour['upgrades']:8d} "
        f"{'#' * round(hour['upgrades'] / most * BAR_WIDTH)}".rstrip()
        for hour in hours
    ]


def draw(hours: list[dict[str, Any]], title: str) -> bytes:
    """Return the chart as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    # The date is below the first hour and below each midnight; the line break keeps all labels level.
    labels = [
        f"{hour['hour'][11:13]}\n" + (hour["hour"][:10] if place == 0 or "T00" in hour["hour"] else "")
        for place, hour in enumerate(hours)
    ]
    axes.bar(range(len(hours)), [hour["upgrades"] for hour in hours], color=BAR_COLOUR, tick_label=labels)
    axes.margins(x=0.01)
    axes.set_title(title)
    axes.set_xlabel("start of the hour, UTC")
    axes.set_ylabel("upgrades (101)")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    pyplot.close(figure)
    return content.getvalue()


def write_chart(module: AnsibleModule, path: Path, hours: list[dict[str, Any]], title: str) -> bool:
    """Draw the chart into `path` and return whether it changed; fail the module where that is impossible."""
    try:
        content = draw(hours, title)
    except ImportError:
        module.fail_json(
            msg=f"{missing_required_lib('matplotlib')} Run `{sys.executable} -m pip install matplotlib`, or "
            "leave out chart_file.",
            exception=traceback.format_exc(),
        )
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.write_bytes(content)
    except OSError as error:
        module.fail_json(
            msg=f"chart_file is '{path}', which can't be written ({error.strerror}): use a file in a folder "
            "that exists."
        )
    return True


def main() -> None:
    """Entry point."""
    module = create_module({"host": {"type": "str"}, "chart_file": {"type": "path"}})
    host, chart = module.params["host"], module.params["chart_file"]
    if host and not re.fullmatch(r"[a-z0-9.-]+", host):
        module.fail_json(msg=f"host is '{host}': use a host name in lower case, such as www.example.com.")
    starts = last_hours(dt.datetime.now(dt.UTC))
    request_filter = {
        "datetime_geq": timestamp(starts[0]),
        "datetime_lt": timestamp(starts[-1] + dt.timedelta(hours=1)),
        "edgeResponseStatus": 101,
    } | ({"clientRequestHTTPHost": host} if host else {})
    try:
        api, zone = open_zone(module)
        purpose = f"count the upgrades of zone {zone.name}"
        data = api.graphql(QUERY, {"zone": zone.id, "filter": request_filter}, purpose, "Analytics Read")
        try:
            found = counts(data)
        except (KeyError, TypeError, ValueError):
            raise api.unexpected(purpose) from None
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    hours: list[dict[str, Any]] = [
        {"hour": timestamp(start), "upgrades": found.get(timestamp(start), 0)} for start in starts
    ]
    total = sum(hour["upgrades"] for hour in hours)
    changed = False
    if chart and not module.check_mode:
        title = f"{host or zone.name}: {total} WebSocket upgrades in 24 hours"
        changed = write_chart(module, Path(chart), hours, title)
    module.exit_json(changed=changed, hours=hours, total=total, table=table(hours))


if __name__ == "__main__":
    main()
