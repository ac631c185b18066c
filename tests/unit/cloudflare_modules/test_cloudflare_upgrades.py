"""cloudflare_upgrades: counts by hour, and the chart."""

import datetime as dt
import sys

import pytest
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_upgrades as upgrades

NAME = "www.example.com"


def test_upgrades_are_counted_by_hour_and_drawn(run_any, cloudflare, tmp_path):
    begins = upgrades.last_hours(dt.datetime.now(dt.UTC))

    def group(begin, status=101, count=1, host=NAME):
        time = (begin + dt.timedelta(minutes=5)).isoformat()
        return {"time": time, "status": status, "count": count, "host": host, "path": "/ws"}

    cloudflare.api.traffic.put(
        [
            group(begins[0], count=3),
            group(begins[23], count=40),
            group(begins[23], count=2),
            # Not counted: another status, another host, the hour that is not over.
            group(begins[5], status=403),
            group(begins[5], host="other.example.com"),
            group(begins[23] + dt.timedelta(hours=1)),
        ]
    )
    chart = tmp_path / "upgrades.png"
    result = run_any(upgrades, host=NAME, chart_file=str(chart))
    assert [hour["upgrades"] for hour in result["hours"]] == [3, *[0] * 22, 42]
    assert result["total"] == 45
    assert len(result["table"]) == 24
    assert result["table"][-1].endswith("42 " + "#" * 50)
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert result["changed"]
    assert not run_any(upgrades, host=NAME, chart_file=str(chart))["changed"]


def test_a_chart_without_matplotlib_names_the_installation(run_any, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run_any(upgrades, chart_file=str(tmp_path / "upgrades.png"))
    assert result["failed"]
    assert f"{sys.executable} -m pip install matplotlib" in result["msg"]
    assert not run_any(upgrades).get("failed")


def test_a_missing_permission_is_named(run_any, cloudflare):
    cloudflare.api.token.put({"permissions": ["Zone Read"]})
    result = run_any(upgrades)
    assert result["failed"]
    assert "Analytics Read" in result["msg"]


@pytest.mark.parametrize("body", ["<html>sign in</html>", {"data": {}}, {"data": None}, []])
def test_an_unexpected_response_is_reported(run_any, cloudflare, body):
    cloudflare.fail("/graphql", 200, body=body, times=1)
    result = run_any(upgrades)
    assert result["failed"]
    assert "is not one of Cloudflare's API" in result["msg"]
