#!/usr/bin/python
"""Ansible module: count the WebSocket upgrades that a zone's edge answered in the last day, hour by hour."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_upgrades
short_description: Count a zone's WebSocket upgrades of the last day by hour
description:
  - Asks Cloudflare's GraphQL API for the requests that the edge answered with 101 in the last 24 whole hours.
  - Cloudflare counts a socket when it closes, so open ones are missing. The data set is sampled, so the
    numbers are estimates. What goes through a socket is counted nowhere.
  - Nothing at Cloudflare changes, so check mode asks as well; it draws no chart.
  - The token needs Analytics Read.
options:
  host:
    description: Only requests for this host name.
    type: str
  chart_file:
    description: PNG file to draw, on the machine that runs the module; its folder must exist.
    type: path
requirements:
  - matplotlib, where a chart is drawn
extends_documentation_fragment:
  - screen_flow.live.cloudflare
  - screen_flow.live.attributes.read_only
  - screen_flow.live.attributes.group_cloudflare
attributes:
  idempotent:
    support: partial
    details: The numbers are those of the hour; a chart that would be the same is not written again.
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Count yesterday's sockets
  screen_flow.live.cloudflare_upgrades:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    chart_file: /tmp/upgrades.png
  delegate_to: localhost
"""

RETURN = r"""
hours:
  description: The 24 hours, the oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    hour:
      description: When the hour began, in UTC, as in ISO 8601.
      type: str
    upgrades:
      description: Requests that the edge answered with 101, by Cloudflare's estimate.
      type: int
total:
  description: The sum.
  type: int
  returned: success
table:
  description: The hours as lines of text, with bars.
  type: list
  elements: str
  returned: success
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

# Packed by Ansible, this file is a part of ansible.modules.
from ..module_utils.cloudflare.client import (
    ZONE_RULES,
    CloudflareFailure,
    api_arguments,
    open_zone,
    require_sdk,
    unusable,
)

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
    """Return when each of the last 24 whole hours began, the oldest first."""
    end = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    return [end - dt.timedelta(hours=back) for back in range(HOURS, 0, -1)]


def stamp(time: dt.datetime) -> str:
    """Return a time as Cloudflare writes it: 2026-11-24T19:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Return hour -> upgrades from the answer's data; raises KeyError, TypeError or ValueError otherwise."""
    found: dict[str, int] = {}
    for zone in data["viewer"]["zones"]:
        for group in zone["httpRequestsAdaptiveGroups"]:
            hour = str(group["dimensions"]["datetimeHour"])
            found[hour] = found.get(hour, 0) + int(group["count"])
    return found


def table(hours: list[dict[str, Any]]) -> list[str]:
    """Return a line for each hour: when (UTC), how many, and a bar."""
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
    # The date stands below the first hour, and below each midnight; the second line keeps all on one level.
    labels = [
        f"{hour['hour'][11:13]}\n" + (hour["hour"][:10] if place == 0 or "T00" in hour["hour"] else "")
        for place, hour in enumerate(hours)
    ]
    axes.bar(range(len(hours)), [hour["upgrades"] for hour in hours], color=BAR_COLOUR, tick_label=labels)
    axes.margins(x=0.01)
    axes.set_title(title)
    axes.set_xlabel("beginning of the hour, UTC")
    axes.set_ylabel("upgrades (101)")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    pyplot.close(figure)
    return content.getvalue()


def write_chart(module: AnsibleModule, path: Path, hours: list[dict[str, Any]], title: str) -> bool:
    """Draw the chart into `path`; return whether it changed. Fails the module where that can't be."""
    try:
        content = draw(hours, title)
    except ImportError:
        lacks = f"{missing_required_lib('matplotlib')} {sys.executable} -m pip install matplotlib does it."
        module.fail_json(msg=lacks, exception=traceback.format_exc())
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.write_bytes(content)
    except OSError as error:
        module.fail_json(
            msg=f"chart_file is '{path}', which can't be written ({error.strerror}); give a file in a folder "
            "that exists."
        )
    return True


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=api_arguments() | {"host": {"type": "str"}, "chart_file": {"type": "path"}},
        supports_check_mode=True,
        **ZONE_RULES,
    )
    require_sdk(module)
    host, chart = module.params["host"], module.params["chart_file"]
    if host and not re.fullmatch(r"[a-z0-9.-]+", host):
        module.fail_json(msg=f"host is '{host}'; give a host name in lower case, such as www.example.com.")
    begins = last_hours(dt.datetime.now(dt.UTC))
    wanted = {
        "datetime_geq": stamp(begins[0]),
        "datetime_lt": stamp(begins[-1] + dt.timedelta(hours=1)),
        "edgeResponseStatus": 101,
    } | ({"clientRequestHTTPHost": host} if host else {})
    try:
        api, zone = open_zone(module)
        what = f"count the upgrades of zone {zone.name}"
        data = api.graphql(QUERY, {"zone": zone.id, "filter": wanted}, what, "Analytics Read")
        try:
            found = counts(data)
        except (KeyError, TypeError, ValueError):
            raise CloudflareFailure(unusable(what, api.base_url)) from None
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    hours: list[dict[str, Any]] = [
        {"hour": stamp(begin), "upgrades": found.get(stamp(begin), 0)} for begin in begins
    ]
    total = sum(hour["upgrades"] for hour in hours)
    changed = False
    if chart and not module.check_mode:
        title = f"{host or zone.name}: {total} WebSocket upgrades in 24 hours"
        changed = write_chart(module, Path(chart), hours, title)
    module.exit_json(changed=changed, hours=hours, total=total, table=table(hours))


if __name__ == "__main__":
    main()
