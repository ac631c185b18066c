"""Runs that are killed: visitors notice nothing, and the next run finishes what was begun.

Over a running site, named by SITE_URL, EDGE_CA_FILE and ORIGIN_CONTAINER (.demo/env).
"""

import asyncio
import os
import secrets
import ssl

import pytest

from tests.kit.crowd import Crowd, LiveSocket
from tests.kit.killed import OTHER, Visitor, kill_run, was_killed
from tests.kit.playbook import changed, run_playbook, words
from tests.kit.site import Demo, SiteClient

pytestmark = pytest.mark.usefixtures("localhost_names")
WRITE_NGINX = "nginx : configure | Write the nginx configuration"
# Variables, tags, task and moment at which each run is killed, one after the other. The later ones first
# finish what the earlier ones left. The last two leave files that nothing loaded and no later run changes.
KILLS = [
    (
        OTHER,
        "docker_engine,app_stack",
        "app_stack : service | Start the project and wait until it is healthy",
        0.5,
    ),
    (OTHER, "origin_firewall", "origin_firewall : configure | Load the firewall rules", 0.4),
    (OTHER, "authenticated_origin_pulls", WRITE_NGINX, "end"),  # while origin pulls are turned off
    ({}, "docker_engine", "docker_engine : configure | Write the daemon configuration", "end"),
    ({}, "authenticated_origin_pulls", WRITE_NGINX, "end"),  # while origin pulls are turned on
]


async def test_a_run_that_is_killed_is_finished_by_the_next(demo: Demo) -> None:
    tls = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    client = SiteClient.sign_in(os.environ["SITE_URL"], tls, f"killed-{secrets.token_hex(4)}")
    crowd = Crowd([LiveSocket(lambda last: client.socket(last, compression=None), "0-0") for _ in range(5)])
    visitor = Visitor()

    def deploy() -> tuple[int, int]:
        for variables, tags, task, when in KILLS:
            killed = kill_run(task, when, f"--tags={tags}", playbook="playbooks/origin.yml", **variables)
            assert was_killed(killed), f"{task}: {killed.stdout[-2000:]}{killed.stderr}"
        finished = run_playbook("site.yml", timeout=600)
        assert finished.returncode == 0, finished.stdout
        assert " lines are ok" in words(finished.stdout)
        again = run_playbook("site.yml", timeout=600)
        assert again.returncode == 0, again.stdout
        return changed(finished.stdout), changed(again.stdout)

    async with crowd.connected():
        with visitor.visiting():
            first, second = await asyncio.to_thread(deploy)
    assert first
    assert second == 0
    assert not visitor.failures, (visitor.failures, visitor.longest_outage)
    assert not crowd.closes
    image = demo.compose("images", "--quiet", "worker").strip()
    created = demo.shell(f"docker create {image}").strip()
    limits = demo.shell(f"docker inspect --format '{{{{.HostConfig.LogConfig.Config}}}}' {created}")
    demo.shell(f"docker rm {created}")
    assert "max-file:7" not in limits, "Docker Engine still runs with the value of the killed run"
